// Drawing the task stream: one row per engine, one bar per task. Only visible bars are drawn. Neighbouring bars of less
// than a pixel are drawn as one.

import { between, current } from "./bars.js";
import { clock, count } from "./format.js";
import { Colouring } from "./palette.js";
import { drawQueue } from "./queue.js";

const GUTTER = 64; // px for the names of engines
const AXIS = 22; // px for the time axis
const QUEUE = 34; // px for the curve of queued tasks
const TOP = AXIS + QUEUE; // px above the rows
const SHORTEST = 0.01; // the least number of seconds across the whole width
const LONGEST = 7 * 86400;
const REACH = 3; // px around a bar in which a click still selects it
const STEPS = [
  0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600,
  86400,
];

/** The visible part: `span` seconds from `from`, rows from `top` px, each `rowHeight` px high. */
export class Timeline {
  from = 0;
  span = 60;
  top = 0;
  rowHeight = 18;
  selected = null;
  hovered = null;
  palette = null;
  colouring = new Colouring();
  /** The index of the label whose tasks stand out; "other" for the labels without a colour; null for none. */
  highlighted = null;
  /** The hub's series of the last minutes; null until the hub has sent them. */
  series = null;
  width = 0;
  height = 0;
  #pen;

  constructor(canvas, bars) {
    this.canvas = canvas;
    this.bars = bars;
    this.#pen = canvas.getContext("2d", { alpha: false });
  }

  get to() {
    return this.from + this.span;
  }

  get scale() {
    return (this.width - GUTTER) / this.span;
  }

  /** The height of all rows in px. */
  get content() {
    return TOP + this.bars.order.length * this.rowHeight + 4;
  }

  /** Fit the canvas to its element. Returns whether its size has changed. */
  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const ratio = devicePixelRatio || 1;
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width === w && this.canvas.height === h) return false;
    [this.width, this.height, this.canvas.width, this.canvas.height] = [width, height, w, h];
    return true;
  }

  /** Zoom by a factor. The time at `x` px stays in its place. */
  zoom(factor, x = (GUTTER + this.width) / 2) {
    const t = this.time(x);
    const span = Math.min(LONGEST, Math.max(SHORTEST, this.span * factor));
    this.from = t - (t - this.from) * (span / this.span);
    this.span = span;
  }

  /** Move the visible part by a number of px. */
  pan(dx, dy) {
    this.from += dx / this.scale;
    this.top += dy;
    this.clamp();
  }

  clamp() {
    this.top = Math.max(0, Math.min(this.top, this.content - this.height));
  }

  time(x) {
    return this.from + (x - GUTTER) / this.scale;
  }

  x(t) {
    return GUTTER + (t - this.from) * this.scale;
  }

  /** The visible rows, each with its y in px. */
  *visible() {
    const rows = this.bars.order;
    const first = Math.floor(this.top / this.rowHeight);
    for (let i = first; i < rows.length; i++) {
      const y = TOP + i * this.rowHeight - this.top;
      if (y >= this.height) return;
      yield [rows[i], y];
    }
  }

  /** Return the bar at a point, preferably a failed one; null if there is none. */
  at(x, y) {
    if (x < GUTTER || y < TOP) return null;
    const row = this.bars.order[Math.floor((y - TOP + this.top) / this.rowHeight)];
    if (!row) return null;
    let [best, distance] = [null, REACH];
    const t = this.time(x);
    const reach = REACH / this.scale;
    for (const bar of between(row, t - reach, t + reach)) {
      const end = bar.end ?? Infinity;
      const away = (t < bar.from ? bar.from - t : t > end ? t - end : 0) * this.scale;
      if (away < distance || (away === distance && bar.status === "failed")) [best, distance] = [bar, away];
    }
    return best;
  }

  /** Return the next bar in the row of the selected bar: 1 to the right, -1 to the left. */
  neighbour(direction) {
    const row = this.selected ? this.bars.rows.get(this.selected.row) : this.visible().next().value?.[0];
    if (!row) return null;
    const all = [...row.ended, ...row.running.values()];
    if (!this.selected) return all.findLast((bar) => bar.from <= this.to) ?? null;
    const at = all.findIndex(({ id, seq }) => id === this.selected.id && seq >= this.selected.seq);
    return all[at + direction] ?? this.selected;
  }

  /** Return the number of tasks in sight by label, their number, and the number of rows in sight. */
  inSight() {
    const counts = new Map();
    let [tasks, rows] = [0, 0];
    for (const [row] of this.visible()) {
      rows++;
      for (const { label } of between(row, this.from, this.to)) {
        counts.set(label, (counts.get(label) ?? 0) + 1);
        tasks++;
      }
    }
    return { counts, tasks, rows };
  }

  /** Whether a bar stands out, or no label does. */
  #standsOut(bar) {
    if (this.highlighted === null) return true;
    return this.highlighted === "other" ? !this.colouring.colours.has(bar.label) : bar.label === this.highlighted;
  }

  draw(now) {
    const pen = this.#pen;
    const ratio = devicePixelRatio || 1;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = this.palette.back;
    pen.fillRect(0, 0, this.width, this.height);
    this.#axis();
    pen.save();
    pen.beginPath();
    pen.rect(GUTTER, AXIS, this.width - GUTTER, QUEUE);
    pen.clip();
    const most = drawQueue(pen, this, now, AXIS + 3, TOP - 4);
    pen.restore();
    pen.save();
    pen.beginPath();
    pen.rect(GUTTER, TOP, this.width - GUTTER, this.height - TOP);
    pen.clip();
    const fills = new Map(); // fill → [x, y, w, h, …]: grouped, since changing the fill takes longer than drawing a bar
    const failures = [];
    for (const [row, y] of this.visible()) this.#row(row, y, now, fills, failures);
    for (const [fill, boxes] of fills) {
      pen.fillStyle = fill;
      for (let i = 0; i < boxes.length; i += 4) pen.fillRect(boxes[i], boxes[i + 1], boxes[i + 2], boxes[i + 3]);
    }
    pen.strokeStyle = this.palette.ink;
    pen.lineWidth = 1;
    for (const [x, y, w, h] of failures) pen.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
    this.#marks(now);
    pen.restore();
    this.#names(most);
    this.#scrollbar();
  }

  #axis() {
    const pen = this.#pen;
    const step = STEPS.find((candidate) => candidate * this.scale >= 90) ?? STEPS.at(-1);
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    pen.lineWidth = 1;
    for (let t = Math.ceil(this.from / step) * step; t < this.to; t += step) {
      const x = Math.round(this.x(t)) + 0.5;
      pen.strokeStyle = this.palette.grid;
      pen.beginPath();
      pen.moveTo(x, AXIS - 5);
      pen.lineTo(x, this.height);
      pen.stroke();
      pen.fillStyle = this.palette.muted;
      const part = step < 1 ? (t - Math.floor(t)).toFixed(step < 0.01 ? 3 : 2).slice(1) : "";
      const text = clock(Math.floor(t + 1e-6), t) + part;
      if (x + 4 + pen.measureText(text).width < this.width) pen.fillText(text, x + 4, AXIS / 2);
    }
  }

  #row(row, y, now, fills, failures) {
    const gap = this.rowHeight >= 8 ? 2 : this.rowHeight >= 4 ? 1 : 0;
    const height = this.rowHeight - gap;
    const right = this.width;
    // For bars of less than a pixel: the pixels from `start` to `end` that they cover, drawn with one fill.
    let [start, end, fill] = [0, 0, null];
    const put = (style, x, w, bar) => {
      let boxes = fills.get(style);
      if (!boxes) fills.set(style, (boxes = []));
      const direct = bar && bar.kind !== "task" && height >= 6;
      boxes.push(x, direct ? y + height / 4 : y, w, direct ? height / 2 : height);
    };
    const flush = () => {
      if (fill !== null) put(fill, start, end - start, null);
      fill = null;
    };
    const { palette } = this;
    const rank = (style) => (style === palette.faded ? 0 : style === palette.error ? 2 : 1);
    for (const bar of between(row, this.from, this.to)) {
      const x = Math.max(GUTTER - 2, this.x(bar.from));
      const w = Math.min(right + 2, this.x(bar.end ?? now)) - x;
      const out = this.#standsOut(bar);
      const failed = out && bar.status === "failed";
      const aborted = out && bar.status === "aborted";
      const plain = out ? palette.fill(this.colouring.colours.get(bar.label)) : palette.faded;
      if (w < 1) {
        const pixel = Math.floor(x);
        const style = failed ? palette.error : aborted ? palette.aborted : plain;
        if (fill !== null && pixel < end) {
          if (rank(style) > rank(fill)) {
            // A pixel with a failure is drawn as failed, and one with a task that stands out so, whatever else it has.
            if (pixel > start) put(fill, start, pixel - start, null);
            [start, end, fill] = [pixel, pixel + 1, style];
          }
        } else if (fill === style && pixel === end) end = pixel + 1;
        else {
          flush();
          [start, end, fill] = [pixel, pixel + 1, style];
        }
        continue;
      }
      const box = w > 3 ? w - 1 : w; // a gap between neighbours
      if (failed || aborted) {
        put(w >= 4 ? (failed ? palette.hatch : palette.crosses) : failed ? palette.error : palette.aborted, x, box, bar);
        if (failed && w >= 4 && height >= 6) failures.push([x, y, box, height]);
      } else put(plain, x, box, bar);
    }
    flush();
  }

  /** Draw open ends of running bars, the number of queued tasks beside them, and frames of selected or hovered bars. */
  #marks(now) {
    const pen = this.#pen;
    const height = this.rowHeight - (this.rowHeight >= 4 ? 2 : 0);
    pen.fillStyle = this.palette.ink;
    pen.font = "10px system-ui, sans-serif";
    pen.textBaseline = "middle";
    const x = this.x(now);
    for (const [row, y] of this.visible()) {
      if (current(row)?.from <= this.to) pen.fillRect(x - 1, y, 2, Math.max(1, height));
      const queued = row.running.size - 1;
      if (queued > 0 && height >= 10) pen.fillText(queued > 99 ? "99+" : `+${queued}`, x + 3, y + height / 2);
      for (const [bar, width] of [
        [this.hovered, 1],
        [this.selected, 2],
      ]) {
        if (bar?.row !== row.index) continue;
        const x = this.x(bar.from);
        pen.strokeStyle = this.palette.ink;
        pen.lineWidth = width;
        pen.strokeRect(x - 1, y - 1, Math.max(3, this.x(bar.end ?? now) - x) + 2, height + 2);
      }
    }
  }

  #names(most) {
    const pen = this.#pen;
    pen.textBaseline = "middle";
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = this.palette.back;
    pen.fillRect(0, TOP, GUTTER, this.height);
    pen.fillStyle = this.palette.muted;
    let free = TOP - 1; // to skip names that would overlap in small rows
    for (const [row, y] of this.visible()) {
      const middle = y + this.rowHeight / 2;
      if (middle - 6 < free) continue;
      pen.fillText(row.id === null ? "?" : `engine ${row.id}`, 4, middle, GUTTER - 8);
      free = middle + 6;
    }
    pen.fillStyle = this.palette.back;
    pen.fillRect(0, 0, GUTTER, TOP);
    pen.fillStyle = this.palette.muted;
    pen.fillText("not sent", 4, AXIS + 9, GUTTER - 8);
    if (most) pen.fillText(`≤ ${count(most)}`, 4, AXIS + 22, GUTTER - 8);
  }

  #scrollbar() {
    const room = this.height - TOP;
    const content = this.content - TOP;
    if (content <= room) return;
    const length = Math.max(20, (room * room) / content);
    this.#pen.fillStyle = this.palette.muted;
    this.#pen.fillRect(this.width - 4, TOP + ((room - length) * this.top) / (content - room), 3, length);
  }
}
