// Survival by class and sex: six bars, and the exact number of matching passengers.

import { ask } from "./api.js";
import { byId, complaint, grouped, hint, ordinal, picture, shape } from "./dom.js";
import { conditions } from "./view.js";

const WIDTH = 320;
const LEFT = 104;
const BAR = 15;
const STEP = 21;
const GAP = 9;
const ROOM = WIDTH - LEFT - 74;

/** Draws the chart; returns the number of passengers. */
export async function draw(view, signal) {
  const place = byId("survival");
  const asked = conditions(view);
  asked.append("by", "passengerClass,sex");
  try {
    const { value } = await ask(`/v1/passengers/stats?${asked}`, { signal });
    const groups = value.groups;
    place.replaceChildren(groups.length > 0 ? bars(groups) : hint("No matching passengers."));
    return groups.reduce((sum, group) => sum + group.count, 0);
  } catch (error) {
    if (error.name !== "AbortError") place.replaceChildren(complaint(error));
    return null;
  }
}

const percent = (rate) => `${Math.round(rate * 100)} %`;

function bars(groups) {
  let y = 2;
  let last = null;
  const shapes = [];
  for (const { passengerClass, sex, count, survivalRate } of groups) {
    if (last !== null && last !== passengerClass) y += GAP;
    const middle = y + BAR / 2;
    const text = (x, kind, words) => shape("text", { x, y: middle, class: kind, "dominant-baseline": "central" }, words);
    if (last !== passengerClass) shapes.push(text(0, "strong", ordinal(passengerClass)));
    const length = ROOM * survivalRate;
    shapes.push(
      text(34, "", sex),
      shape("rect", { x: LEFT, y, width: ROOM, height: BAR, rx: 3, class: "track" }),
      shape("rect", { x: LEFT, y, width: length, height: BAR, rx: 3, class: `fill ${sex}` }, shape("title", {}, `${percent(survivalRate)} of ${grouped(count)}`)),
      text(LEFT + ROOM + 8, "strong", percent(survivalRate)),
      text(LEFT + ROOM + 46, "quiet", short(count)),
    );
    last = passengerClass;
    y += STEP;
  }
  const summary = groups.map((group) => `${ordinal(group.passengerClass)} class ${group.sex} ${percent(group.survivalRate)} of ${grouped(group.count)}`);
  return picture(WIDTH, y, `Share that survived: ${summary.join("; ")}.`, ...shapes);
}

const compact = new Intl.NumberFormat("en-GB", { notation: "compact" });
const short = (count) => compact.format(count);
