// Elements from plain values. Whatever users, events or definitions say becomes a text node and nothing else: there is
// no way from here to markup, and the page's policy forbids every other.

const SVG = "http://www.w3.org/2000/svg";

/** Return an element; `attributes` may hold `on: {event: handler}`; children are elements, texts, or null for nothing. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Return an SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Replace everything in an element. */
export function show(element, ...children) {
  element.replaceChildren(...nodes(children));
}

/** Return what is to be told while something is awaited. */
export function loading(what) {
  return h("p", { class: "note", role: "status" }, `Loading ${what}…`);
}

/** Return a notice with a title, what to do, and perhaps a button that tries again. */
export function notice(title, text, { retry = null, bad = false } = {}) {
  return h(
    "section",
    { class: bad ? "notice bad" : "notice", role: bad ? "alert" : "status" },
    h("h2", {}, title),
    h("p", {}, text),
    retry && h("button", { type: "button", on: { click: retry } }, "Try again"),
  );
}

function fill(element, { on = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  for (const [event, handler] of Object.entries(on)) element.addEventListener(event, handler);
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}
