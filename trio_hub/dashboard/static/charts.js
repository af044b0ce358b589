// Line charts over a range of time, as SVG, with a time axis. The style sheet sets the colours for light and dark.

import { h, setAttribute, setText, svg } from "./dom.js";
import { clock, minute } from "./format.js";

const WIDTH = 600;
const HEIGHT = 120;
const GAP = 2.5; // steps without a value: the line is broken
const LEAST_GAP = 10; // seconds

/**
 * The ranges: `{title, name, seconds, tick, hub}`. `tick` is the seconds between two marks of the time axis, and `hub`
 * the hub's name for the range; null for the values that each page gets every second.
 */
export const RANGES = [
  { title: "5 min", name: "the last 5 minutes", seconds: 300, tick: 60, hub: null },
  { title: "1 h", name: "the last hour", seconds: 3600, tick: 600, hub: "hour" },
  { title: "24 h", name: "the last 24 hours", seconds: 86400, tick: 14400, hub: "day" },
];

/** Return the end of the scale: the smallest of 1, 2, 5, 10, 20, … that is not below a value. */
function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((bound) => bound >= value * 0.9999);
}

/** Return the times at which the axis has a mark: full minutes or hours in the browser's time zone. */
export function ticks(end, { seconds, tick }) {
  const zone = new Date(end * 1000).getTimezoneOffset() * 60;
  const found = [];
  for (let t = Math.ceil((end - seconds - zone) / tick) * tick + zone; t <= end; t += tick) found.push(t);
  return found;
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
  #axis = h("div", { class: "axis", "aria-hidden": "true" });
  #marks = svg("path", { class: "grid" });
  #when = h("span", { class: "muted when" });
  #cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  #svg;
  #at = null; // the index of the point at the pointer
  #data = null;
  #range = RANGES[0];
  #end = 0;

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
      this.#marks,
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
      h("div", { class: "plot" }, this.#top, this.#svg, this.#axis),
    );
  }

  /** Show series, `{t: [...], NAME: [...]}`, with a value every `step` seconds. The range ends at `end`. */
  update(data, range, step, end) {
    this.#data = data;
    this.#range = range;
    this.#end = end;
    const { t } = data;
    const most = Math.max(0, ...this.#lines.flatMap(({ series }) => data[series]));
    const top = ceiling(most);
    const gap = Math.max(GAP * step, LEAST_GAP);
    this.#lines.forEach(({ series }, index) => {
      let path = "";
      data[series].forEach((value, i) => {
        const place = `${this.#x(t[i]).toFixed(1)} ${(HEIGHT * (1 - value / top)).toFixed(1)}`;
        // a point without neighbours is a dot
        path += i > 0 && t[i] - t[i - 1] <= gap ? `L${place}` : `M${place}h0`;
      });
      setAttribute(this.#paths[index], "d", path);
    });
    setText(this.#top, this.#format(top));
    this.#drawAxis();
    this.#tell();
    const told = this.#lines.map(({ name, series }) => {
      const values = data[series];
      const most = values.length ? Math.max(...values) : null;
      return `${name}: now ${this.#format(values.at(-1))}, at most ${this.#format(most)}`;
    });
    setAttribute(this.#svg, "aria-label", `In ${range.name}, ${told.join("; ")}.`);
  }

  #x(t) {
    return WIDTH * (1 - (this.#end - t) / this.#range.seconds);
  }

  #drawAxis() {
    const times = ticks(this.#end, this.#range);
    setAttribute(this.#marks, "d", times.map((t) => `M${this.#x(t).toFixed(1)} 0V${HEIGHT}`).join(""));
    while (this.#axis.children.length > times.length) this.#axis.lastChild.remove();
    while (this.#axis.children.length < times.length) this.#axis.append(h("span"));
    times.forEach((t, index) => {
      const mark = this.#axis.children[index];
      const part = this.#x(t) / WIDTH;
      setText(mark, minute(t));
      mark.style.left = `${(100 * part).toFixed(2)}%`;
      // a label that is not whole within the chart is left out
      mark.style.visibility = part < 0.03 || part > 0.97 ? "hidden" : "visible";
    });
  }

  #point(event) {
    this.#at = null;
    if (event && this.#data) {
      const box = this.#svg.getBoundingClientRect();
      const { t } = this.#data;
      const time = this.#end - this.#range.seconds * (1 - (event.clientX - box.left) / box.width);
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
    if (at < 0) return;
    const x = this.#x(t[at]);
    setAttribute(this.#cursor, "x1", x);
    setAttribute(this.#cursor, "x2", x);
  }
}
