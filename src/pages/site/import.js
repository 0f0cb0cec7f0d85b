// Imports rows from a CSV file: sends it unchanged, and shows the errors or notes of the response.

import { Problem, ask, newKey } from "./api.js";
import { complaint, element, grouped } from "./dom.js";

// Encodings are never guessed, so the user selects one.
const ENCODINGS = [
  ["", "UTF-8, or the file's byte order mark"],
  ["windows-1252", "Western European (Windows-1252)"],
  ["windows-1250", "Central European (Windows-1250)"],
  ["windows-1251", "Cyrillic (Windows-1251)"],
  ["shift_jis", "Japanese (Shift_JIS)"],
  ["utf-16le", "UTF-16 without a byte order mark"],
];
const FAULTS_MAX = 12;

const button = (label, kind, act) => element("button", { type: "button", class: kind, onclick: act }, label);
const actions = (...children) => element("div", { class: "actions" }, ...children);
const field = (label, control, hint = null) =>
  element("div", { class: "field whole" }, element("label", { for: control.id }, label), control, hint ? element("span", { class: "hint" }, hint) : null);

/** The errors, row by row. */
function faults(error) {
  const rows = error.errors.filter(({ line }) => line);
  if (rows.length === 0) return null;
  const shown = rows.slice(0, FAULTS_MAX).map(({ line, field, detail }) =>
    element("li", {}, element("strong", {}, `Line ${line}${field ? `, ${field}` : ""}`), ` ${detail}`));
  const more = rows.length - shown.length;
  if (more > 0) shown.push(element("li", {}, `${rows.length < 100 ? more : "many"} more`));
  return element("ul", { class: "faults" }, ...shown);
}

/** Adds the import button of a resource and returns it; `done` is called with a message after an import. */
export function offerImport(place, resource, done) {
  const title = element("h2", { id: "import-title", tabindex: -1 }, "Import a CSV file");
  const trouble = element("div", { role: "alert" });
  const body = element("div", {});
  const dialog = element("dialog", { id: "import", "aria-labelledby": "import-title" },
    element("div", { class: "dialog-head" }, title, element("button", { type: "button", class: "quiet close", "aria-label": "Close", onclick: () => dialog.close() }, "✕")),
    trouble, body);
  document.body.append(dialog);

  function present(...content) {
    trouble.replaceChildren();
    body.replaceChildren(...content);
    if (!dialog.open) dialog.showModal();
    title.focus();
  }

  function choose() {
    let key = newKey();
    const file = element("input", { type: "file", id: "import-file", accept: ".csv,.tsv,.txt,text/csv,text/tab-separated-values" });
    const encoding = element("select", { id: "import-encoding" }, ...ENCODINGS.map(([value, label]) => element("option", { value }, label)));
    const lenient = element("input", { type: "checkbox", id: "import-lenient" });
    const submit = element("button", { type: "submit", class: "primary" }, "Import");
    const form = element("form", { novalidate: true },
      field("File", file, "either all rows are imported, or none"),
      field("Encoding", encoding),
      element("label", { class: "check" }, lenient, " ignore unknown columns"),
      actions(submit));
    // Another file, or the same file with other options, is a different request.
    form.addEventListener("change", () => (key = newKey()));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      trouble.replaceChildren();
      const [chosen] = file.files;
      if (!chosen) return file.focus();
      submit.disabled = true;
      try {
        const charset = encoding.value ? `; charset=${encoding.value}` : "";
        const headers = { "Content-Type": `text/csv${charset}`, "Idempotency-Key": key, ...(lenient.checked ? { Prefer: "handling=lenient" } : {}) };
        const { value } = await ask(`/v1/${resource}`, { method: "POST", body: chosen, headers });
        imported(value);
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        trouble.replaceChildren(complaint(error), faults(error) ?? "");
      } finally {
        submit.disabled = false;
      }
    });
    present(form);
  }

  function imported({ count, notes = [] }) {
    const summary = `${grouped(count)} ${count === 1 ? "row was" : "rows were"} imported`;
    const list = element("ul", {}, ...notes.map((note) => element("li", {}, note)));
    present(element("p", { role: "status" }, `${summary}.`), notes.length > 0 ? list : "", actions(button("Done", "primary", () => dialog.close())));
    done(summary);
  }

  const offer = button("Import…", "", choose);
  place.append(offer);
  return offer;
}
