// Line charts of the last five minutes, as SVG. The style sheet sets the colours for light and dark.

import { h, setAttribute, setText, svg } from "./dom.js";
import { clock } from "./format.js";

const WIDTH = 600;
const HEIGHT = 120;

/** Return the end of the scale: the smallest of 1, 2, 5, 10, 20, … that is not below a value. */
function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((bound) => bound >= value * 0.9999);
}

/**
 * A chart: a figure with a legend that shows the value of each line, now or at the pointer.
 *
 * `lines` are `{name, series, kind}`, where `kind` names the line's colour; `format` writes a value.
 */
export class Chart {
  #lines;
  #format;
  #paths;
  #values;
  #top = h("span", { class: "scale" });
  #when = h("span", { class: "muted when" });
  #cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  #svg;
  #at = null; // the index of the point at the pointer
  #data = null;

  constructor(title, lines, format) {
    this.#lines = lines;
    this.#format = format;
    this.#paths = lines.map(({ kind }) => svg("path", { class: `line ${kind}` }));
    this.#values = lines.map(() => h("output", {}));
    this.#svg = svg(
      "svg",
      {
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
        preserveAspectRatio: "none",
        role: "img",
        onpointermove: (event) => this.#point(event),
        onpointerleave: () => this.#point(null),
      },
      [0, 0.5, 1].map((part) => svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT * part, y2: HEIGHT * part })),
      this.#paths,
      this.#cursor,
    );
    const legend = lines.map(({ name, kind }, index) =>
      h("li", {}, h("i", { class: `key ${kind}` }), `${name} `, this.#values[index]),
    );
    this.element = h(
      "figure",
      { class: "chart" },
      h("figcaption", {}, h("h2", {}, title), this.#when, h("ul", { class: "legend" }, legend)),
      h("div", { class: "plot" }, this.#top, this.#svg),
    );
  }

  /** Show series: `{t: [...], NAME: [...]}`. Values may be null. */
  update(data) {
    this.#data = data;
    const end = data.t.at(-1);
    const most = Math.max(0, ...this.#lines.flatMap(({ series }) => data[series].filter((value) => value !== null)));
    const top = ceiling(most);
    const x = (t) => (WIDTH * (1 - (end - t) / 300)).toFixed(1);
    this.#lines.forEach(({ series }, index) => {
      let path = "";
      let pen = "M";
      data[series].forEach((value, i) => {
        if (value === null) pen = "M";
        else {
          path += `${pen}${x(data.t[i])} ${(HEIGHT * (1 - value / top)).toFixed(1)}`;
          pen = "L";
        }
      });
      setAttribute(this.#paths[index], "d", path);
    });
    setText(this.#top, this.#format(top));
    this.#tell();
    const told = this.#lines.map(({ name, series }) => {
      const values = data[series].filter((value) => value !== null);
      const most = values.length ? Math.max(...values) : null;
      return `${name}: now ${this.#format(data[series].at(-1))}, at most ${this.#format(most)}`;
    });
    setAttribute(this.#svg, "aria-label", `The last five minutes. ${told.join("; ")}.`);
  }

  #point(event) {
    this.#at = null;
    if (event && this.#data) {
      const box = this.#svg.getBoundingClientRect();
      const { t } = this.#data;
      const time = t.at(-1) - 300 * (1 - (event.clientX - box.left) / box.width);
      const index = t.findIndex((at) => at >= time);
      if (index >= 0) this.#at = index;
    }
    this.#tell();
  }

  #tell() {
    if (!this.#data) return;
    const { t } = this.#data;
    const at = Math.min(this.#at ?? t.length - 1, t.length - 1);
    this.#lines.forEach(({ series }, index) => setText(this.#values[index], this.#format(this.#data[series][at])));
    setText(this.#when, this.#at === null ? "" : clock(t[at]));
    setAttribute(this.#cursor, "visibility", this.#at === null ? "hidden" : "visible");
    const x = WIDTH * (1 - (t.at(-1) - t[at]) / 300);
    setAttribute(this.#cursor, "x1", x);
    setAttribute(this.#cursor, "x2", x);
  }
}
