// The passengers page: requests data and updates the page.

import { ask, linked } from "./api.js";
import * as air from "./air.js";
import * as deployments from "./deployments.js";
import { byId, complaint, element, grouped } from "./dom.js";
import { offerImport } from "./import.js";
import * as passenger from "./passenger.js";
import { begin, may } from "./sign-in.js";
import { link } from "./site.js";
import * as survival from "./survival.js";
import * as table from "./table.js";
import { conditions, filtered, first, fromAddress, PAGE, question, sorted, toAddress } from "./view.js";

// Delay after the last keystroke before the list is requested.
const TYPING_MS = 200;

const filters = byId("filters");
const buttons = { next: byId("next"), prev: byId("previous") };

let view = fromAddress();
// The number of rows before this page; unknown if the URL was stored earlier.
let start = view.after || view.before ? history.state?.start ?? null : 0;
let total = null;
let counted = null;
let shown = 0;
let asking = new AbortController();
let typing = 0;
// The last change to a passenger, shown before the numbers until the view changes.
let news = "";

/** Changes to another view, and adds it to the browser history unless it replaces the current entry. */
function go(next, { replace = false, from = 0 } = {}) {
  view = next;
  start = from;
  news = "";
  history[replace ? "replaceState" : "pushState"]({ start }, "", toAddress(view));
  return refresh();
}

async function refresh() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  reflect();
  table.busy(true);
  // The count of other filters is not valid for these.
  if (conditions(view).toString() !== counted) counted = total = null;
  try {
    const { value, headers } = await ask(`/v1/passengers?${question(view)}`, { signal, headers: { Prefer: "count=estimated" } });
    shown = value.length;
    table.show(value, passenger.open);
    for (const [relation, button] of Object.entries(buttons)) page(button, linked(headers, relation), relation);
    estimate(headers);
    byId("problem").replaceChildren();
    showStatus();
    count(signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    const again = element("button", { type: "button", onclick: refresh }, "Try again");
    byId("problem").replaceChildren(complaint(error, again));
  }
  table.busy(false);
}

/** Copies the view to the controls. */
function reflect() {
  for (const control of filters.querySelectorAll("input, select")) {
    if (control !== document.activeElement || control.tagName === "SELECT") control.value = view[control.name];
  }
  byId("clear").hidden = !filtered(view);
  table.markOrder(view.sort);
}

function page(button, place, relation) {
  button.disabled = place === null;
  button.onclick = () => {
    const next = { ...first(view), after: place.get("after") ?? "", before: place.get("before") ?? "" };
    const from = start === null ? null : Math.max(0, start + (relation === "next" ? PAGE : -PAGE));
    go(next, { from }).then(() => byId("list").scrollIntoView({ block: "start" }));
  };
}

/**
 * Requests the exact count together with the chart: after the list, so that intermediate input does not count a million rows,
 * and once for each set of filters, because pages and orders do not change it.
 */
async function count(signal) {
  const asked = conditions(view).toString();
  if (asked === counted) return;
  const number = await survival.draw(view, signal);
  if (number === null || signal.aborted) return;
  counted = asked;
  total = { number, exact: true };
  showStatus();
}

/** Uses the planner's estimate until then. */
function estimate(headers) {
  const number = Number(headers.get("Content-Range")?.split("/")[1]);
  if (total === null && Number.isFinite(number)) total = { number, exact: false };
  // An incomplete first page contains all rows.
  if (start === 0 && shown < PAGE && buttons.next.disabled) total = { number: shown, exact: true };
}

function showStatus() {
  byId("count").textContent = total === null ? "" : `${total.exact ? "" : "about "}${grouped(total.number)}${filtered(view) ? " matching" : ""}`;
  table.status(shown, start, total, news);
}

function filter() {
  clearTimeout(typing);
  const entered = Object.fromEntries([...new FormData(filters)].map(([name, value]) => [name, value.trim()]));
  const next = first({ ...view, ...entered });
  if (toAddress(next) !== toAddress(first(view)) || view.after || view.before) go(next, { replace: true });
}

filters.addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(filter, event.target.tagName === "SELECT" ? 0 : TYPING_MS);
});
filters.addEventListener("submit", (event) => {
  event.preventDefault();
  filter();
});
filters.addEventListener("reset", () => {
  // The controls are cleared only after the event.
  queueMicrotask(() => {
    byId("clear").blur();
    go({ ...fromAddress(), q: "", class: "", sex: "", survived: "", min: "", max: "", after: "", before: "" });
    filters.elements.q.focus();
  });
});
table.whenSorted((column) => go(sorted(view, column)));
table.whenOpened(passenger.open);
byId("create").addEventListener("click", passenger.create);
async function changed(message) {
  counted = null;
  news = `${message}. `;
  await refresh();
}
passenger.whenChanged(changed);
const importing = offerImport(byId("add"), "passengers", changed);
addEventListener("popstate", () => {
  view = fromAddress();
  start = view.after || view.before ? history.state?.start ?? null : 0;
  news = "";
  refresh();
});

/** Shows what the signed-in user may do and see. */
function allowed() {
  byId("create").hidden = importing.hidden = !may("passengers", "create");
  counted = null;
  refresh();
  deployments.draw();
  air.draw();
}

await begin(allowed);
if (location.hash.length === 37) passenger.open(location.hash.slice(1));
link("passengers");
