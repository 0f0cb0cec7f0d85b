// The history of a row: who changed it, when, in which request, and the previous values. Each version can be restored.

import { ask, linked } from "./api.js";
import { element } from "./dom.js";
import { may } from "./sign-in.js";

const DONE = { create: "Created", replace: "Replaced", patch: "Changed", delete: "Deleted", restore: "Restored" };
const PAGE = 20;
const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

const button = (label, kind, act) => element("button", { type: "button", class: kind, onclick: act }, label);
const actions = (...children) => element("div", { class: "actions" }, ...children);

/**
 * The history of a page's rows. `page` has `resource`, `pathOf(uuid)`, `present(heading, focus, ...content)`,
 * `fail(error, ...actions)`, `facts(row)` as pairs of texts, `called(row)`, `show(row, tag)`, `changed(message, uuid)` and `close()`.
 */
export function histories(page) {
  /** Restores a version, or a deleted row. */
  async function restore(uuid, version, tag, pressed) {
    pressed.disabled = true;
    try {
      const options = { method: "POST", body: version === null ? {} : { version }, headers: tag ? { "If-Match": tag } : {} };
      const { value, headers } = await ask(`${page.pathOf(uuid)}/restore`, options);
      page.changed(`${page.called(value)} was restored`, uuid);
      page.show(value, headers.get("ETag"));
    } catch (error) {
      pressed.disabled = false;
      page.fail(error);
    }
  }

  /** One change: the fields before and after, if the row existed on both sides. */
  function item(change, after, row, tag) {
    const { operation, changedAt, changedBy, requestId, before, versionBefore } = change;
    const heading = element("p", {}, element("strong", {}, DONE[operation] ?? operation), ` ${moments.format(new Date(changedAt))}`);
    if (changedBy !== null) heading.append(` by ${changedBy}`);
    if (requestId !== null) heading.append(" ", element("span", { class: "request" }, `in request ${requestId}`));
    const list = element("ul", {});
    if (before && after) {
      const now = new Map(page.facts(after));
      for (const [label, was] of page.facts(before)) {
        if (now.get(label) !== was) list.append(element("li", {}, `${label}: ${was} → ${now.get(label)}`));
      }
    }
    const back = before && may(page.resource, "update")
      ? button(`Restore previous version`, "quiet", (event) => restore(row.uuid, versionBefore, tag, event.target))
      : null;
    return element("li", {}, heading, list.childElementCount > 0 ? list : null, back);
  }

  /** Shows the changes of a row, newest first; `tag` is the row's ETag, or null if it is deleted. */
  async function open(row, tag, query = `limit=${PAGE}`, after = tag ? row : null) {
    try {
      const { value: changes, headers } = await ask(`${page.pathOf(row.uuid)}/history?${query}`);
      const list = element("ol", { class: "history" });
      for (const change of changes) {
        list.append(item(change, after, row, tag));
        after = change.before;
      }
      const older = linked(headers, "next");
      const last = after;
      page.present(
        `History of ${page.called(row)}`,
        null,
        changes.length > 0 ? list : element("p", { class: "empty" }, "No changes are stored."),
        actions(
          older ? button("Older changes", "", () => open(row, tag, String(older), last)) : null,
          tag ? button("Back", "quiet", () => page.show(row, tag)) : button("Close", "quiet", () => page.close()),
        ),
      );
    } catch (error) {
      page.fail(error);
    }
  }

  /** Reports that a row was deleted, and offers to restore it. */
  function gone(row) {
    const message = `${page.called(row)} was deleted`;
    page.changed(message, null);
    const back = may(page.resource, "update") ? button("Restore", "", () => restore(row.uuid, null, null, back)) : null;
    const close = button("Close", "primary", () => page.close());
    page.present(message, close, actions(close, back, button("History", "quiet", () => open(row, null))));
  }

  return { open, gone };
}
