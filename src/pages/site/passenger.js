// One passenger: view, create, edit, delete. The server validates the input and reports errors by field.

import { Problem, ask, newKey } from "./api.js";
import { byId, complaint, element, ordinal } from "./dom.js";
import { histories } from "./history.js";
import { may } from "./sign-in.js";

const dialog = byId("passenger");
const title = byId("passenger-title");
const trouble = byId("passenger-problem");
const body = byId("passenger-body");

const WHOLE = { type: "number", min: 0, step: 1, inputmode: "numeric" };
const FIELDS = [
  { name: "name", label: "Name", hint: "1 to 150 characters", input: { maxlength: 150, spellcheck: "false" } },
  { name: "passengerClass", label: "Class", choices: [["1", "1st"], ["2", "2nd"], ["3", "3rd"]], read: Number },
  { name: "sex", label: "Sex", choices: [["female", "Female"], ["male", "Male"]] },
  { name: "survived", label: "Survived", choices: [["true", "Yes"], ["false", "No"]], read: (text) => text === "true" },
  { name: "age", label: "Age", hint: "years; leave empty if unknown", input: { type: "number", min: 0, max: 130, step: "any", inputmode: "decimal" }, read: Number },
  { name: "fare", label: "Fare", hint: "pounds", input: { type: "number", min: 0, step: "any", inputmode: "decimal" }, read: Number },
  { name: "siblingsOrSpousesAboard", label: "Siblings or spouses aboard", input: WHOLE, read: Number },
  { name: "parentsOrChildrenAboard", label: "Parents or children aboard", input: WHOLE, read: Number },
];

// Called after a change with a message and the UUID.
let changed = () => {};
export const whenChanged = (act) => (changed = act);

const pathOf = (uuid) => `/v1/passengers/${encodeURIComponent(uuid)}`;

/** Shows content in the dialog, and moves the focus to its start. */
function present(heading, focus, ...content) {
  title.textContent = heading;
  trouble.replaceChildren();
  body.replaceChildren(...content);
  if (!dialog.open) dialog.showModal();
  (focus ?? title).focus();
}

function fail(error, ...actions) {
  if (!(error instanceof Problem)) throw error;
  trouble.replaceChildren(complaint(error, ...actions));
}

const button = (label, kind, act) => element("button", { type: "button", class: kind, onclick: act }, label);
const actions = (...buttons) => element("div", { class: "actions" }, ...buttons);

/** Loads and shows a passenger. */
export async function open(uuid) {
  try {
    const { value, headers } = await ask(pathOf(uuid));
    show(value, headers.get("ETag"));
  } catch (error) {
    present("Passenger", null, actions(button("Close", "", () => dialog.close())));
    fail(error);
  }
}

const factsOf = (passenger) => [
  ["Survived", passenger.survived ? "Yes" : "No"],
  ["Class", ordinal(passenger.passengerClass)],
  ["Sex", passenger.sex],
  ["Age", String(passenger.age ?? "unknown")],
  ["Fare", `£${passenger.fare.toFixed(2)}`],
  ["Siblings or spouses aboard", String(passenger.siblingsOrSpousesAboard)],
  ["Parents or children aboard", String(passenger.parentsOrChildrenAboard)],
];

const past = histories({
  resource: "passengers",
  pathOf,
  present,
  fail,
  facts: (passenger) => [["Name", passenger.name], ...factsOf(passenger)],
  called: (passenger) => passenger.name,
  show: (passenger, tag) => show(passenger, tag),
  changed: (message, uuid) => changed(message, uuid),
  close: () => dialog.close(),
});

function show(passenger, tag) {
  history.replaceState(history.state, "", `#${passenger.uuid}`);
  const list = element("dl", {});
  for (const [term, fact] of [...factsOf(passenger), ["Key", passenger.uuid]]) {
    list.append(element("div", {}, element("dt", {}, term), element("dd", {}, fact)));
  }
  const buttons = actions(
    may("passengers", "update") ? button("Edit", "primary", () => edit(passenger, tag)) : null,
    button("History", "", () => past.open(passenger, tag)),
    may("passengers", "delete") ? button("Delete…", "danger quiet", () => confirmDelete(passenger, tag)) : null,
  );
  present(passenger.name, null, list, buttons);
}

/** Asks for confirmation before deleting. */
function confirmDelete(passenger, tag) {
  const keep = button("Keep", "", () => show(passenger, tag));
  const gone = button("Delete passenger", "danger", async () => {
    gone.disabled = true;
    try {
      await ask(pathOf(passenger.uuid), { method: "DELETE", headers: conditional(tag) });
      past.gone(passenger);
    } catch (error) {
      gone.disabled = false;
      fail(error, reload(error, passenger.uuid));
    }
  });
  const question = element("p", {}, "This deletes ", element("strong", {}, passenger.name), ". Its history is kept, so that it can be restored.");
  present("Delete this passenger?", keep, question, actions(gone, keep));
}

// Prevents lost updates (RFC 9110, section 13.1.1).
const conditional = (tag) => (tag ? { "If-Match": tag } : {});

const reload = (error, uuid) => (error.status === 412 ? button("Show the current version", "", () => open(uuid)) : null);

export function create() {
  let sent = null;
  let key = null;
  const form = formFor({}, "Create passenger", async (values) => {
    // Resending the same values is the same request, so that a lost response creates no second passenger.
    const text = JSON.stringify(values);
    if (text !== sent) [sent, key] = [text, newKey()];
    const { value } = await ask("/v1/passengers", { method: "POST", body: values, headers: { "Idempotency-Key": key } });
    dialog.close();
    changed(`${value.name} was created`, value.uuid);
  });
  present("New passenger", form.elements.name, form);
}

function edit(passenger, tag) {
  const form = formFor(passenger, "Save changes", async (values) => {
    const options = { method: "PUT", body: values, headers: conditional(tag) };
    const { value, headers } = await ask(pathOf(passenger.uuid), options);
    changed(`${value.name} was saved`, value.uuid);
    show(value, headers.get("ETag"));
  }, (error) => reload(error, passenger.uuid));
  form.querySelector(".actions").append(button("Cancel", "quiet", () => show(passenger, tag)));
  present(`Edit ${passenger.name}`, form.elements.name, form);
}

function control(field, value) {
  const given = value === undefined || value === null ? "" : String(value);
  const described = `${field.name}-error${field.hint ? ` ${field.name}-hint` : ""}`;
  const common = { id: `field-${field.name}`, name: field.name, "aria-describedby": described };
  let input;
  if (field.choices) {
    const options = field.choices.map(([choice, label]) => element("option", { value: choice, selected: choice === given }, label));
    input = element("select", common, element("option", { value: "" }, "Choose…"), ...options);
  } else {
    input = element("input", { type: "text", ...common, ...field.input, value: given });
  }
  return element(
    "div",
    { class: `field field-${field.name}` },
    element("label", { for: `field-${field.name}` }, field.label),
    input,
    field.hint ? element("span", { class: "hint", id: `${field.name}-hint` }, field.hint) : null,
    element("span", { class: "error", id: `${field.name}-error` }),
  );
}

/** The values for the API. An empty field is null, and the server decides whether that is valid. */
function valuesOf(form) {
  const values = {};
  for (const { name, read } of FIELDS) {
    const text = form.elements[name].value;
    values[name] = text === "" && name !== "name" ? null : (read ?? String)(text);
  }
  return values;
}

/** Shows each error at its field, and moves the focus to the first. */
function mark(form, faults) {
  for (const { name } of FIELDS) {
    const detail = faults.get(name);
    byId(`${name}-error`).textContent = detail ?? "";
    if (detail) form.elements[name].setAttribute("aria-invalid", "true");
    else form.elements[name].removeAttribute("aria-invalid");
  }
  form.querySelector("[aria-invalid]")?.focus();
}

function formFor(passenger, label, send, remedy = () => null) {
  // The browser's own validation is disabled: the server has the rules, and reports all errors at once.
  const submit = element("button", { type: "submit", class: "primary" }, label);
  const controls = FIELDS.map((field) => control(field, passenger[field.name]));
  const form = element("form", { novalidate: true, autocomplete: "off" }, ...controls, actions(submit));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    trouble.replaceChildren();
    try {
      await send(valuesOf(form));
    } catch (error) {
      fail(error, remedy(error));
      submit.disabled = false;
      mark(form, error.fields());
    } finally {
      submit.disabled = false;
    }
  });
  return form;
}

dialog.querySelector(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => history.replaceState(history.state, "", location.pathname + location.search));
