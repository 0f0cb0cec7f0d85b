// What the list shows: filters, order and place. It lives in the address, so that a view can be kept, shared and gone
// back to; and it is put here into the words of the API.

export const PAGE = 50;

const FILTERS = ["q", "class", "sex", "survived", "min", "max"];
const PLACES = ["after", "before"];

export function fromAddress() {
  const parameters = new URLSearchParams(location.search);
  const view = {};
  for (const name of [...FILTERS, "sort", ...PLACES]) view[name] = parameters.get(name) ?? "";
  return view;
}

export function toAddress(view) {
  const parameters = new URLSearchParams(Object.entries(view).filter(([, value]) => value !== ""));
  const text = parameters.toString();
  return text ? `?${text}` : location.pathname;
}

export const filtered = (view) => FILTERS.some((name) => view[name] !== "");

/** The same without a place: the first page. */
export const first = (view) => ({ ...view, after: "", before: "" });

// In a pattern these mean something; with a backslash they stand for themselves.
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

/** The whole question. */
export function question(view) {
  const asked = conditions(view);
  asked.append("limit", PAGE);
  // Whoever sorts by age looks for ages, so the unknown ones come last either way.
  if (view.sort) asked.append("order", view.sort.startsWith("age.") ? `${view.sort}.nullslast` : view.sort);
  for (const name of PLACES) if (view[name]) asked.append(name, view[name]);
  return asked;
}

/** The order after a click on a column: up, down, then as it was created. */
export function sorted(view, column) {
  const next = { [`${column}.asc`]: `${column}.desc`, [`${column}.desc`]: "" };
  return first({ ...view, sort: next[view.sort] ?? `${column}.asc` });
}
