// Creates elements. Text is inserted as text nodes, never as markup, because API responses are data.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") node.addEventListener("click", value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  // A string becomes a text node.
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const element = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

export const shape = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** A drawing with a text alternative. */
export function picture(width, height, description, ...children) {
  return shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": description }, ...children);
}

export const byId = (id) => document.getElementById(id);

export const hint = (text) => element("p", { class: "empty" }, text);

/** An error message with a link to the page of its kind, and a sign-in button if credentials are missing. */
export function complaint(problem, ...actions) {
  if (problem.status === 401) {
    actions.unshift(element("button", { type: "button", onclick: () => dispatchEvent(new Event("sign-in")) }, "Sign in"));
  }
  const link = problem.type ? element("a", { href: problem.type }, "What does this mean?") : null;
  return element(
    "div",
    { class: "notice bad" },
    element("p", {}, element("strong", {}, sentence(problem.title)), ` ${sentence(problem.detail)} `, link),
    ...actions,
  );
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

const ORDINALS = { 1: "1st", 2: "2nd", 3: "3rd" };
export const ordinal = (number) => ORDINALS[number] ?? String(number);

const numbers = new Intl.NumberFormat("en-GB");
export const grouped = (number) => numbers.format(number);

/** Formats seconds for people. */
export function lasting(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
