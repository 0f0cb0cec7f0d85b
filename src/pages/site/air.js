// The last week of air quality: one line per station.

import { ask } from "./api.js";
import { byId, complaint, element, hint, picture, shape } from "./dom.js";

const WIDTH = 320;
const HEIGHT = 150;
const LEFT = 30;
const BOTTOM = 20;
const DAY = 86_400_000;
const WEEK = 7 * DAY;
const STATIONS = 5;
// The API has no query for the latest readings, so the time span grows until there are some.
const LOOK_BACK = [8 * DAY, 90 * DAY, 1100 * DAY];

const dates = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
const years = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });

let stations = [];

async function readings() {
  for (const span of LOOK_BACK) {
    const from = new Date(Date.now() - span).toISOString().slice(0, 10);
    const { value } = await ask(`/v1/air-quality?from=${from}`);
    if (value.entities.length > 0) return value.entities;
  }
  return [];
}

export async function draw() {
  const measure = byId("measure");
  measure.addEventListener("change", () => lines(measure));
  try {
    stations = (await readings()).slice(0, STATIONS).map(({ id, values }) => ({
      id,
      values: values.map((value) => ({ ...value, at: Date.parse(value.timestamp) })),
    }));
    lines(measure);
  } catch (error) {
    byId("air").replaceChildren(complaint(error));
  }
}

/** The station names without a common first word. */
function shortNames() {
  const words = stations.map(({ id }) => id.split(/[_.:-]/));
  const same = words.length > 1 && words.every((name) => name.length > 1 && name[0] === words[0][0]);
  return words.map((name, index) => (same ? name.slice(1).join(" ") : stations[index].id));
}

function lines(measure) {
  const place = byId("air");
  const name = measure.value;
  const label = measure.selectedOptions[0].textContent;
  const unit = name === "co" ? "mg/m³" : "µg/m³";
  const end = Math.max(...stations.flatMap(({ values }) => values.map((value) => value.at)));
  const shown = stations.map(({ values }) => values.filter((value) => value.at > end - WEEK && value[name] !== null));
  const points = shown.flat();
  if (points.length < 2) return place.replaceChildren(hint(`No readings for ${label}.`));

  const start = Math.min(...points.map((value) => value.at));
  const top = Math.max(...points.map((value) => value[name]), 1e-9);
  const step = tick(top);
  const highest = Math.ceil(top / step) * step;
  const x = (at) => LEFT + ((at - start) / Math.max(end - start, 1)) * (WIDTH - LEFT - 2);
  const y = (value) => 6 + (1 - Math.max(value, 0) / highest) * (HEIGHT - BOTTOM - 6);

  const grid = [];
  for (let value = 0; value <= highest + step / 2; value += step) {
    const text = Number(value.toPrecision(3)).toString();
    grid.push(
      shape("line", { x1: LEFT, x2: WIDTH, y1: y(value), y2: y(value), class: "grid" }),
      shape("text", { x: LEFT - 6, y: y(value), class: "quiet", "text-anchor": "end", "dominant-baseline": "central" }, text),
    );
  }
  const curves = shown.map((values, index) =>
    shape("polyline", { class: `curve series-${index}`, points: values.map((value) => `${x(value.at).toFixed(1)},${y(value[name]).toFixed(1)}`).join(" ") }),
  );
  const days = [
    shape("text", { x: LEFT, y: HEIGHT - 4, class: "quiet" }, dates.format(start)),
    shape("text", { x: WIDTH, y: HEIGHT - 4, class: "quiet", "text-anchor": "end" }, years.format(end)),
  ];
  const names = shortNames();
  const mean = (values) => values.reduce((sum, value) => sum + value[name], 0) / Math.max(values.length, 1);
  const summary = names.map((station, index) => `${station} ${mean(shown[index]).toFixed(1)}`).join(", ");
  const legend = element("ul", { class: "legend" }, ...names.map((station, index) => element("li", { class: `series-${index}` }, station)));
  const description = `${label} in ${unit}, ${dates.format(start)} to ${years.format(end)}; mean by station: ${summary}.`;
  return place.replaceChildren(
    element("p", { class: "hint" }, `${label} in ${unit}, latest available week.`),
    picture(WIDTH, HEIGHT, description, ...grid, ...curves, ...days),
    legend,
  );
}

/** A round distance between grid lines, for three to five lines. */
function tick(top) {
  const rough = top / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((distance) => distance >= rough * 0.99) ?? power;
}
