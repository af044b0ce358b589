// The legend of the task stream: the labels in sight with their colours. A click on a label makes its tasks stand out.

import { button, h, reconcile, setAttribute, setText } from "./dom.js";
import { labelLine, plural } from "./format.js";
import { Colouring } from "./palette.js";

export class Legend {
  element = h("ul", { class: "legend labels", "aria-label": "Labels in sight" });
  #timeline;
  #changed;

  /** `changed` is called when another label is to stand out. */
  constructor(timeline, changed) {
    this.#timeline = timeline;
    this.#changed = changed;
  }

  /** Show the labels in sight. `counts` has their numbers of tasks. Returns whether any label has another colour. */
  update(counts, bars) {
    const { colouring, highlighted } = this.#timeline;
    const changed = colouring.choose(counts);
    const shown = [...colouring.colours].map(([index, place]) => ({ index, place })).sort((a, b) => a.place - b.place);
    if (colouring.others) shown.push({ index: "other", place: undefined });
    if (highlighted !== null && !shown.some(({ index }) => index === highlighted)) this.#highlight(null);
    reconcile(
      this.element,
      shown,
      ({ index }) => index,
      ({ index }) => {
        const choose = () => this.#highlight(this.#timeline.highlighted === index ? null : index);
        const one = button("", choose, { "aria-pressed": "false" });
        one.append(h("i", { class: "key" }), h("span"));
        return h("li", {}, one);
      },
      (item, { index, place }) => {
        const one = item.firstChild;
        const { others } = colouring;
        const name = index === "other" ? `other (${plural(others, "label")})` : labelLine(bars.labels.get(index));
        one.firstChild.nextSibling.style.background = `var(${Colouring.property(place)})`;
        setText(one.lastChild, name || "no label");
        setAttribute(one, "title", name);
      },
    );
    return changed;
  }

  #highlight(index) {
    this.#timeline.highlighted = index;
    for (const [key, item] of this.element.keyed) setAttribute(item.firstChild, "aria-pressed", String(key === index));
    this.#changed();
  }
}
