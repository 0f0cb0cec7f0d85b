// The view of the list: filters, order and position. It is stored in the URL, so that it can be bookmarked, shared and
// restored, and is translated here to the API's query.

export const PAGE = 50;

const FILTERS = ["q", "class", "sex", "survived", "min", "max"];
const CURSORS = ["after", "before"];

export function fromAddress() {
  const parameters = new URLSearchParams(location.search);
  const view = {};
  for (const name of [...FILTERS, "sort", ...CURSORS]) view[name] = parameters.get(name) ?? "";
  return view;
}

export function toAddress(view) {
  const parameters = new URLSearchParams(Object.entries(view).filter(([, value]) => value !== ""));
  const text = parameters.toString();
  return text ? `?${text}` : location.pathname;
}

export const filtered = (view) => FILTERS.some((name) => view[name] !== "");

/** The same view on the first page. */
export const first = (view) => ({ ...view, after: "", before: "" });

// Characters with a meaning in patterns are escaped by a backslash.
const literal = (text) => text.replace(/[\\%_*]/g, "\\$&");

/** The filters as conditions of the API. */
export function conditions(view) {
  const asked = new URLSearchParams();
  if (view.q) asked.append("name", `ilike.*${literal(view.q)}*`);
  if (view.class) asked.append("passengerClass", `eq.${view.class}`);
  if (view.sex) asked.append("sex", `eq.${view.sex}`);
  if (view.survived) asked.append("survived", `is.${view.survived}`);
  if (view.min) asked.append("age", `gte.${view.min}`);
  if (view.max) asked.append("age", `lte.${view.max}`);
  return asked;
}

/** The complete query. */
export function question(view) {
  const asked = conditions(view);
  asked.append("limit", PAGE);
  // Sorting by age puts unknown ages last in both directions.
  if (view.sort) asked.append("order", view.sort.startsWith("age.") ? `${view.sort}.nullslast` : view.sort);
  for (const name of CURSORS) if (view[name]) asked.append(name, view[name]);
  return asked;
}

/** The order after a click on a column: ascending, descending, then by creation. */
export function sorted(view, column) {
  const next = { [`${column}.asc`]: `${column}.desc`, [`${column}.desc`]: "" };
  return first({ ...view, sort: next[view.sort] ?? `${column}.asc` });
}
