// The served resources according to the OpenAPI document, with a link to the page of each.

import { ask } from "./api.js";
import { byId, element } from "./dom.js";

let asked = null;

/** The OpenAPI document. */
export const described = () => (asked ??= ask("/openapi.json").then(({ value }) => value));

/** The names of the resources whose rows have keys. */
export const resources = (document) =>
  Object.keys(document.paths).flatMap((path) => path.match(/^\/v1\/([^/{}]+)\/\{uuid\}$/)?.[1] ?? []);

/** A schema with its references resolved. */
export function resolved(document, schema) {
  if (!schema.$ref) return schema;
  const { $ref, ...beside } = schema;
  return { ...resolved(document, $ref.slice(2).split("/").reduce((node, step) => node[step], document)), ...beside };
}

/** Formats `siblingsAboard` as `Siblings aboard`. */
export function words(name) {
  const text = name.replace(/[_-]+/g, " ").replace(/([a-z0-9])([A-Z])/g, (_, end, start) => `${end} ${start.toLowerCase()}`);
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Adds the other resources to the links at the top. */
export async function link(current) {
  const document = await described();
  const [first] = byId("site").children;
  for (const name of resources(document).filter((name) => name !== "passengers").reverse()) {
    const mark = name === current ? { "aria-current": "page" } : {};
    first.after(element("a", { href: `/resources/${name}`, ...mark }, titleOf(document, name)));
  }
  // Many resources do not fit into the bar, which then scrolls. scrollIntoView() would make the link the starting point of Tab.
  const bar = byId("site"), link = bar.querySelector("[aria-current]");
  if (link) bar.scrollLeft += link.getBoundingClientRect().left - bar.getBoundingClientRect().left - (bar.clientWidth - link.clientWidth) / 2;
}

/** The heading of a resource. */
export const titleOf = (document, name) => Object.values(document.paths[`/v1/${name}`] ?? {})[0]?.tags?.[0] ?? words(name);
