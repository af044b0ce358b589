// Functions for elements. Text is always inserted as text; these pages never parse HTML from the hub.

/**
 * Characters that are obeyed instead of shown: control characters, marks that reverse the order of the text around
 * them, and halves of characters. A text of a program could use them to look like another text.
 */
const OBEYED =
  /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
const SHOWN = new Set(["title", "aria-label"]); // attributes that people read

const SVG = "http://www.w3.org/2000/svg";

/** Return a text with a replacement character for each character that would be obeyed instead of shown. */
export const visible = (text) => String(text).replace(OBEYED, "\ufffd");

/**
 * Make an element: `h("a", {href: "#/", onclick: f}, "Tasks", child)`. Attributes and children that are false or null
 * are left out.
 */
export function h(name, attributes = {}, ...children) {
  return furnish(document.createElement(name), attributes, children);
}

/** Make an SVG element, with the arguments of `h`. */
export function svg(name, attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, name), attributes, children);
}

function furnish(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : SHOWN.has(name) ? visible(value) : value);
  }
  element.append(
    ...children
      .flat()
      .filter((child) => child !== null && child !== undefined && child !== false)
      .map((child) => (child instanceof Node ? child : visible(child))),
  );
  return element;
}

export function button(text, onclick, attributes = {}) {
  return h("button", { type: "button", onclick, ...attributes }, text);
}

/** Set the text of an element if it differs, which avoids needless layout, lost selections and announcements. */
export function setText(element, text) {
  text = visible(text);
  if (element.textContent !== text) element.textContent = text;
}

/** Set an attribute if it differs; remove it if the value is null. */
export function setAttribute(element, name, value) {
  if (SHOWN.has(name) && value) value = visible(value);
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/**
 * Show items in a parent in this order, and keep the elements of items that are shown already.
 *
 * `create(item)` makes an element, `update(element, item)` makes it show the item; `before` is a child that stays last.
 * The focused element keeps the focus.
 */
export function reconcile(parent, items, key, create, update, before = null) {
  const known = (parent.keyed ??= new Map());
  const wanted = new Set(items.map(key));
  for (const [name, element] of known) {
    if (!wanted.has(name)) {
      element.remove();
      known.delete(name);
    }
  }
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  let next = before;
  for (let index = items.length - 1; index >= 0; index--) {
    const name = key(items[index]);
    let element = known.get(name);
    if (!element) {
      element = create(items[index]);
      known.set(name, element);
    }
    update(element, items[index]);
    if (element.parentNode !== parent || element.nextSibling !== next) parent.insertBefore(element, next);
    next = element;
  }
  if (focused && focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true });
}

/** Return a hidden paragraph, and a function that shows the text of an error in it. Given null, the function hides it. */
export function errorLine() {
  const line = h("p", { class: "trouble", role: "alert", hidden: true });
  const show = (error) => {
    line.hidden = !error;
    setText(line, error?.message ?? "");
  };
  return [line, show];
}

/** Return a `dl` of pairs `[name, value]`. A value is a text or an element; pairs without a value are left out. */
export function facts(pairs, attributes = { class: "facts" }) {
  return h(
    "dl",
    attributes,
    pairs
      .filter(([, value]) => value !== null && value !== undefined && value !== false && value !== "")
      .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** Announce a text to screen readers. */
export function announce(text) {
  setText(document.getElementById("announcer"), text);
}

/** Return a colour of the style sheet in a form that a canvas accepts. */
export function colour(name) {
  const probe = document.documentElement.appendChild(document.createElement("i"));
  probe.style.color = `var(${name})`;
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}
