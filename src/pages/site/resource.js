// The page of any resource: its table, filters, form and paging, built from the OpenAPI document. The view is stored in the
// URL's fragment, so that it can be bookmarked, shared and restored.

import { Problem, ask, linked, newKey } from "./api.js";
import { byId, complaint, element, grouped, hint, picture, shape } from "./dom.js";
import { histories } from "./history.js";
import { offerImport } from "./import.js";
import { begin, may } from "./sign-in.js";
import { described, link, resolved, titleOf, words } from "./site.js";

const PAGE = 50;
// Delay after the last keystroke before the list is requested.
const TYPING_MS = 200;
// Maximum number of table columns; the dialog shows all fields.
const COLUMNS_MAX = 8;

const name = location.pathname.split("/")[2];
const base = `/v1/${name}`;
const pathOf = (uuid) => `${base}/${encodeURIComponent(uuid)}`;
const dialog = byId("row");
const filters = byId("filters");
const trouble = byId("row-problem");
const buttons = { next: byId("next"), prev: byId("previous") };

let fields = [];
// The field that identifies a row to people: the first text field, if there is one.
let main = null;
let offered = {};
let singular = "row";
let asking = new AbortController();
let typing = 0;
let news = "";

// --- the OpenAPI document ---

/** A field with the properties of its control and its column. */
function field(document, [key, given]) {
  const schema = resolved(document, given);
  const types = [schema.type].flat();
  const values = schema.enum?.filter((value) => value !== null);
  const isDecimal = types.includes("string") && /^\^-\?\[0-9\]/.test(schema.pattern ?? "");
  const kind = values && !types.includes("integer") ? "enum"
    : types.includes("boolean") ? "boolean"
    : types.includes("integer") ? "integer"
    : types.includes("number") ? "number"
    : isDecimal ? "decimal"
    : schema.format === "date" || schema.format === "date-time" || schema.format === "uuid" ? schema.format
    : "text";
  const facts = [
    schema.description,
    types.includes("null") ? "may be empty" : null,
    kind === "date-time" ? "such as 2026-01-31T12:00:00Z" : null,
  ];
  return {
    key,
    kind,
    schema,
    label: words(key),
    isNumber: ["integer", "number", "decimal"].includes(kind),
    isNullable: types.includes("null"),
    choices: kind === "boolean" ? [["true", "Yes"], ["false", "No"]] : values?.map((value) => [value, value]),
    hint: facts.filter(Boolean).join("; "),
  };
}

function read(document) {
  const many = document.paths[base];
  const one = document.paths[`${base}/{uuid}`];
  if (!many?.get || !one) throw new Problem({ title: "There is no such resource", detail: `nothing is served at ${base}` });
  const rows = resolved(document, many.get.responses[200].content["application/json"].schema.items);
  fields = Object.entries(rows.properties).filter(([key]) => key !== "uuid").map((entry) => field(document, entry));
  main = fields.find(({ kind }) => kind === "text") ?? fields[0];
  const takesMany = many.post?.requestBody.content["text/csv"];
  offered = { create: many.post, bulk: takesMany, read: one.get, replace: one.put, delete: one.delete };
  offered.restore = document.paths[`${base}/{uuid}/restore`];
  singular = one.get?.summary?.replace(/^Read an? /, "") ?? "row";
  const title = titleOf(document, name);
  byId("title").textContent = title;
  window.document.title = `${title} · pycrudapi`;
  return document.paths[`${base}/stats`]?.get;
}

// --- the view ---

const view = () => new URLSearchParams(location.hash.slice(1));

function go(next, { replace = false } = {}) {
  news = "";
  history[replace ? "replaceState" : "pushState"](null, "", `#${next}`);
  return refresh();
}

// Characters with a meaning in patterns are escaped by a backslash.
const literal = (text) => text.replace(/[\\%_*]/g, "\\$&");

/** The filters as conditions of the API. */
function conditions() {
  const asked = new URLSearchParams();
  for (const { key, kind } of fields) {
    const [value, low, high] = ["", ".from", ".to"].map((end) => view().get(key + end));
    if (value) asked.append(key, kind === "text" ? `ilike.*${literal(value)}*` : `eq.${value}`);
    if (low) asked.append(key, `gte.${low}`);
    if (high) asked.append(key, `lte.${high}`);
  }
  return asked;
}

async function refresh() {
  asking.abort();
  asking = new AbortController();
  reflect();
  byId("table").setAttribute("aria-busy", true);
  try {
    const asked = conditions();
    asked.append("limit", PAGE);
    for (const part of ["order", "after", "before"]) if (view().get(part)) asked.append(part, view().get(part));
    const options = { signal: asking.signal, headers: { Prefer: "count=estimated" } };
    const { value, headers } = await ask(`${base}?${asked}`, options);
    show(value);
    for (const [relation, button] of Object.entries(buttons)) page(button, linked(headers, relation));
    showStatus(value.length, Number(headers.get("Content-Range")?.split("/")[1]));
    byId("problem").replaceChildren();
    draw();
  } catch (error) {
    if (error.name === "AbortError") return;
    byId("problem").replaceChildren(complaint(error, element("button", { type: "button", onclick: refresh }, "Try again")));
  }
  byId("table").setAttribute("aria-busy", false);
}

function page(button, place) {
  button.disabled = place === null;
  button.onclick = () => {
    const next = view();
    for (const side of ["after", "before"]) {
      if (place.get(side)) next.set(side, place.get(side));
      else next.delete(side);
    }
    go(next).then(() => byId("list").scrollIntoView({ block: "start" }));
  };
}

function showStatus(count, total) {
  const isWhole = buttons.next.disabled && buttons.prev.disabled;
  const number = isWhole ? grouped(count) : `about ${grouped(Math.max(total || 0, count))}`;
  byId("count").textContent = number;
  byId("status").textContent = `${news}${count === 0 ? "No rows" : `${count} of ${number}`}`;
}

// --- the table ---

/** Formats a value as text. */
function shown({ kind }, value) {
  if (value === null || value === undefined) return "–";
  if (kind === "boolean") return value ? "yes" : "no";
  return kind === "date-time" ? value.replace("T", " ").replace(/(\.\d*?)0*Z$/, "$1Z").replace(".Z", "Z") : String(value);
}

const columns = () => [main, ...fields.filter((item) => item !== main)].slice(0, COLUMNS_MAX);

function heads() {
  const head = ({ key, label, isNumber }) =>
    element("th", { scope: "col", "data-column": key, class: isNumber ? "number" : null },
      element("button", { type: "button", onclick: () => sort(key) }, label));
  byId("columns").replaceChildren(...columns().map(head));
}

/** The order after a click on a column: ascending, descending, then by creation. */
function sort(key) {
  const after = { [`${key}.asc`]: `${key}.desc`, [`${key}.desc`]: "" };
  const next = first(view());
  const order = after[next.get("order")] ?? `${key}.asc`;
  if (order) next.set("order", order);
  else next.delete("order");
  go(next);
}

/** The same view on the first page. */
function first(next) {
  next.delete("after");
  next.delete("before");
  return next;
}

function show(rows) {
  const cell = (row, column, index) => {
    const text = shown(column, row[column.key]);
    const content = column.kind === "text" ? element("span", { class: "cut" }, text) : text;
    if (index > 0) return element("td", { class: column.isNumber ? "number" : column.kind }, content);
    return element("th", { scope: "row" }, element("button", { type: "button", class: "link", onclick: () => open(row.uuid) }, content));
  };
  const line = (row) => element("tr", { "data-uuid": row.uuid }, ...columns().map((column, index) => cell(row, column, index)));
  const why = conditions().size > 0 ? "No matching rows. Clear a filter to see more." : "There are no rows yet.";
  const none = element("tr", {}, element("td", { colspan: columns().length, class: "nobody" }, why));
  byId("rows").replaceChildren(...(rows.length > 0 ? rows.map(line) : [none]));
}

// --- the filters ---

function controls() {
  const bound = (item, end, label) => {
    const type = item.kind === "date" ? "date" : item.kind === "integer" || item.kind === "number" ? "number" : "text";
    return element("input", { name: item.key + end, type, step: "any", "aria-label": `${item.label} ${label}`, placeholder: label });
  };
  const control = (item) => {
    if (item.choices) {
      const options = [["", "All"], ...item.choices].map(([value, label]) => element("option", { value }, label));
      return element("label", {}, item.label, element("select", { name: item.key }, ...options));
    }
    if (item.kind === "text" || item.kind === "uuid") {
      return element("label", { class: item.kind === "text" ? "wide" : null }, item.label, element("input", { type: "search", name: item.key, spellcheck: "false" }));
    }
    return element("fieldset", { class: item.kind }, element("legend", {}, item.label), bound(item, ".from", "from"), element("span", { "aria-hidden": "true" }, "–"), bound(item, ".to", "to"));
  };
  const clear = element("button", { type: "reset", id: "clear", class: "quiet", hidden: true }, "Clear");
  // Those of other columns are folded: with many columns the table would be far below.
  const others = fields.filter((item) => !columns().includes(item));
  const more = element("details", { hidden: others.length === 0 },
    element("summary", {}, others.length === 1 ? "1 more filter" : `${others.length} more filters`), element("div", { class: "filters" }, ...others.map(control)));
  filters.replaceChildren(...fields.filter((item) => columns().includes(item)).map(control), clear, more);
}

/** Copies the view to the controls. */
function reflect() {
  for (const control of filters.querySelectorAll("input, select")) {
    if (control !== document.activeElement || control.tagName === "SELECT") control.value = view().get(control.name) ?? "";
    if (control.value) control.closest("details")?.setAttribute("open", "");
  }
  byId("clear").hidden = conditions().size === 0;
  const [column, direction] = (view().get("order") ?? "").split(".");
  for (const head of byId("columns").children) {
    if (head.dataset.column !== column) head.removeAttribute("aria-sort");
    else head.setAttribute("aria-sort", direction === "asc" ? "ascending" : "descending");
  }
}

function filter() {
  clearTimeout(typing);
  const next = first(view());
  for (const [key, value] of new FormData(filters)) {
    if (value.trim()) next.set(key, value.trim());
    else next.delete(key);
  }
  if (String(next) !== String(view())) go(next, { replace: true });
}

filters.addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(filter, event.target.tagName === "SELECT" ? 0 : TYPING_MS);
});
filters.addEventListener("submit", (event) => {
  event.preventDefault();
  filter();
});
filters.addEventListener("reset", () => queueMicrotask(() => go(new URLSearchParams())));

// --- one row ---

const button = (label, kind, act) => element("button", { type: "button", class: kind, onclick: act }, label);
const actions = (...children) => element("div", { class: "actions" }, ...children);
const conditional = (tag) => (tag ? { "If-Match": tag } : {});
const reload = (error, uuid) => (error.status === 412 ? button("Show the current version", "", () => open(uuid)) : null);
const called = (row) => shown(main, row[main.key]);

function present(heading, focus, ...content) {
  byId("row-title").textContent = heading;
  trouble.replaceChildren();
  byId("row-body").replaceChildren(...content);
  if (!dialog.open) dialog.showModal();
  (focus ?? byId("row-title")).focus();
}

function fail(error, ...more) {
  if (!(error instanceof Problem)) throw error;
  trouble.replaceChildren(complaint(error, ...more));
}

async function open(uuid) {
  try {
    const { value, headers } = await ask(pathOf(uuid));
    reveal(value, headers.get("ETag"));
  } catch (error) {
    present(words(singular), null, actions(button("Close", "", () => dialog.close())));
    fail(error);
  }
}

const factsOf = (row) => fields.map((item) => [item.label, shown(item, row[item.key])]);

const past = histories({
  resource: name,
  pathOf: (uuid) => pathOf(uuid),
  present,
  fail,
  facts: factsOf,
  called,
  show: (row, tag) => reveal(row, tag),
  changed: (message) => changed(message),
  close: () => dialog.close(),
});

function reveal(row, tag) {
  const facts = [...factsOf(row), ["Key", row.uuid]];
  const list = element("dl", {});
  for (const [term, fact] of facts) list.append(element("div", {}, element("dt", {}, term), element("dd", {}, fact)));
  const possible = [
    offered.replace && may(name, "update") ? button("Edit", "primary", () => edit(row, tag)) : null,
    offered.restore ? button("History", "", () => past.open(row, tag)) : null,
    offered.delete && may(name, "delete") ? button("Delete…", "danger quiet", () => confirmDelete(row, tag)) : null,
  ];
  present(called(row), null, list, actions(...possible));
}

function confirmDelete(row, tag) {
  const keep = button("Keep", "", () => reveal(row, tag));
  const gone = button(`Delete ${singular}`, "danger", async () => {
    gone.disabled = true;
    try {
      await ask(pathOf(row.uuid), { method: "DELETE", headers: conditional(tag) });
      if (offered.restore) return past.gone(row);
      dialog.close();
      changed(`${called(row)} was deleted`);
    } catch (error) {
      gone.disabled = false;
      fail(error, reload(error, row.uuid));
    }
  });
  const kept = offered.restore ? ". Its history is kept, so that it can be restored." : " permanently. This cannot be undone.";
  const question = element("p", {}, "This deletes ", element("strong", {}, called(row)), kept);
  present(`Delete this ${singular}?`, keep, question, actions(gone, keep));
}

function changed(message) {
  news = `${message}. `;
  refresh();
}

function create() {
  let sent = null;
  let key = null;
  const form = formFor({}, `Create ${singular}`, async (values) => {
    // Resending the same values is the same request, so that a lost response creates no second row.
    const text = JSON.stringify(values);
    if (text !== sent) [sent, key] = [text, newKey()];
    const { value } = await ask(base, { method: "POST", body: values, headers: { "Idempotency-Key": key } });
    dialog.close();
    changed(`${called(value)} was created`);
  });
  present(`New ${singular}`, controlOf(form, main), form);
}

function edit(row, tag) {
  const form = formFor(row, "Save changes", async (values) => {
    const { value, headers } = await ask(pathOf(row.uuid), { method: "PUT", body: values, headers: conditional(tag) });
    changed(`${called(value)} was saved`);
    reveal(value, headers.get("ETag"));
  }, (error) => reload(error, row.uuid));
  form.querySelector(".actions").append(button("Cancel", "quiet", () => reveal(row, tag)));
  present(`Edit ${called(row)}`, controlOf(form, main), form);
}

/** The control of a field. Its name has a prefix, because a form's `elements` has `length` and `item` of its own. */
const controlOf = (form, { key }) => form.elements[`field-${key}`];

function input(item, value) {
  const { key, kind, schema, choices } = item;
  const given = value === undefined || value === null ? "" : String(value);
  const common = { id: `field-${key}`, name: `field-${key}`, "aria-describedby": `${key}-error${item.hint ? ` ${key}-hint` : ""}` };
  if (choices) {
    const options = choices.map(([choice, label]) => element("option", { value: choice, selected: choice === given }, label));
    return element("select", common, element("option", { value: "" }, "Choose…"), ...options);
  }
  const type = kind === "integer" || kind === "number" ? "number" : kind === "date" ? "date" : "text";
  const rules = type === "number" ? { step: kind === "integer" ? 1 : "any", min: schema.minimum, max: schema.maximum } : { maxlength: schema.maxLength, spellcheck: "false" };
  return element("input", { type, ...rules, ...common, value: given });
}

/** Parses a number as a double unless that would change it. */
function number(text) {
  const value = Number(text);
  return !/^-?\d{16,}$/.test(text) || Number.isSafeInteger(value) ? value : JSON.rawJSON(text);
}

/** The values for the API. An empty field is null, and the server decides whether that is valid. */
function valuesOf(form) {
  const values = {};
  for (const item of fields) {
    const { key, kind, isNullable, schema } = item;
    const text = controlOf(form, item).value;
    const isEmptyText = kind === "text" && !isNullable && !(schema.minLength > 0);
    if (text === "" && !isEmptyText) values[key] = null;
    else if (kind === "integer" || kind === "number") values[key] = number(text);
    else values[key] = kind === "boolean" ? text === "true" : text;
  }
  return values;
}

/** Shows each error at its field, and moves the focus to the first. */
function mark(form, faults) {
  for (const item of fields) {
    const detail = faults.get(item.key);
    byId(`${item.key}-error`).textContent = detail ?? "";
    if (detail) controlOf(form, item).setAttribute("aria-invalid", "true");
    else controlOf(form, item).removeAttribute("aria-invalid");
  }
  form.querySelector("[aria-invalid]")?.focus();
}

function formFor(row, label, send, remedy = () => null) {
  // The browser's own validation is disabled: the server has the rules, and reports all errors at once.
  const submit = element("button", { type: "submit", class: "primary" }, label);
  const control = (item) =>
    element("div", { class: "field" },
      element("label", { for: `field-${item.key}` }, item.label),
      input(item, row[item.key]),
      item.hint ? element("span", { class: "hint", id: `${item.key}-hint` }, item.hint) : null,
      element("span", { class: "error", id: `${item.key}-error` }));
  const form = element("form", { novalidate: true, autocomplete: "off" }, ...fields.map(control), actions(submit));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    trouble.replaceChildren();
    try {
      await send(valuesOf(form));
    } catch (error) {
      fail(error, remedy(error));
      mark(form, error.fields());
    } finally {
      submit.disabled = false;
    }
  });
  return form;
}

dialog.querySelector(".close").addEventListener("click", () => dialog.close());
byId("rows").addEventListener("click", (event) => {
  const uuid = event.target.closest("tr")?.dataset.uuid;
  if (uuid && !event.target.closest("button") && getSelection().isCollapsed) open(uuid);
});
byId("create").addEventListener("click", create);
addEventListener("popstate", refresh);

// --- the chart ---

let draw = () => {};

/** Shows the statistics of the resource as bars. */
function pictured(document, operation) {
  const by = operation.parameters.find(({ name }) => name === "by").schema.pattern.match(/\(([^)]*)\)/)[1].split("|");
  const group = resolved(document, operation.responses[200].content["application/json"].schema.properties.groups.items);
  const fill = (id, names) => byId(id).replaceChildren(...names.map((value) => element("option", { value }, words(value))));
  fill("by", by);
  fill("measure", Object.keys(group.properties));
  byId("pictures").hidden = false;
  draw = async () => {
    const [column, measure] = [byId("by").value, byId("measure").value];
    const asked = conditions();
    asked.append("by", column);
    try {
      const { value } = await ask(`${base}/stats?${asked}`, { signal: asking.signal });
      const item = fields.find(({ key }) => key === column);
      const groups = value.groups.map((one) => [shown(item, one[column]), one[measure]]);
      byId("groups").replaceChildren(groups.length > 0 ? bars(groups, words(measure)) : hint("No matching rows."));
    } catch (error) {
      if (error.name !== "AbortError") byId("groups").replaceChildren(complaint(error));
    }
  };
  for (const id of ["by", "measure"]) byId(id).addEventListener("change", () => draw());
}

const compact = new Intl.NumberFormat("en-GB", { notation: "compact", maximumSignificantDigits: 3 });

function bars(groups, what) {
  const [width, left, bar, step] = [320, 110, 15, 21];
  const room = width - left - 56;
  const most = Math.max(...groups.map(([, value]) => value ?? 0), 0);
  const shapes = groups.slice(0, 20).flatMap(([label, value], index) => {
    const y = 2 + index * step;
    const text = (x, words) => shape("text", { x, y: y + bar / 2, "dominant-baseline": "central" }, words);
    const length = most > 0 ? (room * Math.max(value ?? 0, 0)) / most : 0;
    return [
      text(0, label.length > 16 ? `${label.slice(0, 15)}…` : label),
      shape("rect", { x: left, y, width: room, height: bar, rx: 3, class: "track" }),
      shape("rect", { x: left, y, width: length, height: bar, rx: 3, class: "part-0" }),
      text(left + room + 8, value === null ? "–" : compact.format(value)),
    ];
  });
  const summary = groups.map(([label, value]) => `${label} ${value === null ? "unknown" : compact.format(value)}`).join("; ");
  return picture(width, 2 + Math.min(groups.length, 20) * step, `${what}: ${summary}.`, ...shapes);
}

// --- startup ---

try {
  const document = await described();
  link(name);
  const statistics = read(document);
  heads();
  controls();
  byId("create").textContent = `New ${singular}`;
  const importing = offered.bulk ? offerImport(byId("add"), name, changed) : null;
  if (statistics) pictured(document, statistics);
  begin(() => {
    const mayCreate = may(name, "create");
    byId("create").hidden = !offered.create || !mayCreate;
    if (importing) importing.hidden = !mayCreate;
    refresh();
  });
} catch (error) {
  byId("problem").replaceChildren(complaint(error));
  byId("table").setAttribute("aria-busy", false);
}
