// The latest deployments, one bar each: the steps in order, proportional to their duration.

import { ask } from "./api.js";
import { byId, complaint, element, hint, lasting, picture, shape } from "./dom.js";

const SHOWN = 5;
const WIDTH = 320;
const STEP = 38;
const BAR = 13;
const COLOURS = 5;
// The list is ordered by component, so the time range selects the latest; if it is empty, a longer range is used.
const DAYS = [1, 30];

async function latest() {
  for (const days of DAYS) {
    const since = new Date(Date.now() - days * 86_400_000).toISOString().slice(0, 19).replace("T", " ");
    const asked = new URLSearchParams({ start_datetime: since, limit: 1000 });
    const { value } = await ask(`/v1/steps/durations?${asked}`);
    if (value.durations.length > 0) return value.durations;
  }
  return [];
}

/** Groups the steps by component and version. */
function grouped(durations) {
  const groups = new Map();
  for (const step of durations) {
    const key = JSON.stringify([step.component, step.version]);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(step);
  }
  const begun = (steps) => steps[0].start;
  return [...groups.values()].sort((a, b) => (begun(a) < begun(b) ? 1 : -1)).slice(0, SHOWN);
}

export async function draw() {
  const place = byId("deployments");
  try {
    const deployments = grouped(await latest());
    if (deployments.length > 0) place.replaceChildren(...bars(deployments));
    else place.replaceChildren(hint("None in the last 30 days."), element("p", { class: "hint" }, "POST /v1/steps records a step; ", element("a", { href: "/docs" }, "try it"), "."));
  } catch (error) {
    place.replaceChildren(complaint(error));
  }
}

const total = (steps) => steps.reduce((sum, step) => sum + (step.duration_seconds ?? 0), 0);

function bars(deployments) {
  const longest = Math.max(...deployments.map(total), 1e-9);
  const kinds = [...new Set(deployments.flat().filter((step) => step.duration_seconds !== null).map((step) => step.status))];
  const colour = (status) => `part-${kinds.indexOf(status) % COLOURS}`;
  const summary = [];
  const shapes = deployments.flatMap((steps, index) => {
    const { component, version } = steps[0];
    const y = index * STEP;
    let x = 0;
    const parts = steps
      .filter((step) => step.duration_seconds !== null)
      .map((step) => {
        const width = (step.duration_seconds / longest) * WIDTH;
        const part = shape(
          "rect",
          { x, y: y + 19, width: Math.max(width - 1, 0.5), height: BAR, rx: 2, class: `fill ${colour(step.status)}` },
          shape("title", {}, `${step.status}: ${lasting(step.duration_seconds)}`),
        );
        x += width;
        return part;
      });
    const last = steps[steps.length - 1].status;
    summary.push(`${component} ${version} took ${lasting(total(steps))}, now ${last}`);
    return [
      shape("text", { x: 0, y: y + 12, class: "strong" }, clipped(`${component} ${version}`, 26)),
      shape("text", { x: WIDTH, y: y + 12, class: "quiet", "text-anchor": "end" }, `${clipped(last, 14)} · ${lasting(total(steps))}`),
      shape("rect", { x: 0, y: y + 19, width: WIDTH, height: BAR, rx: 3, class: "track" }),
      ...parts,
    ];
  });
  const legend = kinds.slice(0, COLOURS).map((status) => element("li", { class: colour(status) }, clipped(status, 20)));
  return [
    picture(WIDTH, deployments.length * STEP, `${summary.join("; ")}.`, ...shapes),
    element("ul", { class: "legend" }, ...legend),
  ];
}

const clipped = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
