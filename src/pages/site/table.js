// The table: rows, sort indicators, and the status below it.

import { byId, element, grouped } from "./dom.js";

const rows = byId("rows");
const table = byId("table");

export const busy = (is) => table.setAttribute("aria-busy", is);

function row(passenger, open) {
  const { uuid, name, passengerClass, sex, age, fare, survived } = passenger;
  const opens = element("button", { type: "button", class: "link", onclick: () => open(uuid) }, name);
  return element(
    "tr",
    { "data-uuid": uuid },
    element("th", { scope: "row" }, opens),
    element("td", { class: "number" }, String(passengerClass)),
    element("td", {}, sex),
    element("td", { class: "number" }, age === null ? element("span", { class: "unknown", title: "unknown" }, "–") : String(age)),
    element("td", { class: "number minor" }, fare.toFixed(2)),
    element("td", { class: "number minor" }, String(passenger.siblingsOrSpousesAboard)),
    element("td", { class: "number minor" }, String(passenger.parentsOrChildrenAboard)),
    element("td", {}, element("span", { class: survived ? "pill yes" : "pill no" }, survived ? "yes" : "no")),
  );
}

export function show(passengers, open) {
  const nobody = element("tr", {}, element("td", { colspan: 8, class: "nobody" }, "No matching passengers. Clear a filter to see more."));
  rows.replaceChildren(...(passengers.length > 0 ? passengers.map((passenger) => row(passenger, open)) : [nobody]));
}

/** Marks the column by which the list is sorted. */
export function markOrder(sort) {
  const [column, direction] = sort.split(".");
  for (const head of table.querySelectorAll("thead th")) {
    if (head.dataset.column !== column) head.removeAttribute("aria-sort");
    else head.setAttribute("aria-sort", direction === "asc" ? "ascending" : "descending");
  }
}

/** Shows the number of rows after the latest news; `start` is unknown if the URL was stored earlier. */
export function status(count, start, total, news) {
  const of = total === null ? "" : ` of ${total.exact ? "" : "about "}${grouped(total.number)}`;
  let text = `${count} ${count === 1 ? "passenger" : "passengers"}${of}`;
  if (count === 0) text = "No passengers";
  else if (start !== null) text = `${grouped(start + 1)}–${grouped(start + count)}${of}`;
  const place = byId("status");
  if (place.textContent !== news + text) place.textContent = news + text;
}

export function whenSorted(act) {
  for (const head of table.querySelectorAll("thead th")) {
    head.querySelector("button").addEventListener("click", () => act(head.dataset.column));
  }
}

/** A click anywhere on a row opens it; for the keyboard the name is a button. */
export function whenOpened(open) {
  rows.addEventListener("click", (event) => {
    const uuid = event.target.closest("tr")?.dataset.uuid;
    if (uuid && !event.target.closest("button") && getSelection().isCollapsed) open(uuid);
  });
}
