// The tasks of the stream: what the hub has told of them, by engine.

const KEPT = 100_000;

/**
 * A bar: `{seq, row, start, end, kind, status, label, id}`, with `end` null while it runs.
 *
 * Each row has its `ended` bars by the time of their end, those that are `running` by msg_id, and the duration of its
 * `longest`, which says how far before its end a bar may begin.
 */
export class Bars {
  rows = new Map();
  labels = new Map();
  waiting = 0;
  lost = 0;
  count = 0;
  /** Changes when something has: who draws them compares it. */
  version = 0;
  #latest = -1;
  #order = null;

  /** Take a message of the hub's. What is known already, since it was in an earlier one, is left out. */
  add({ next, lost, bars, labels, engines, waiting }) {
    for (const [index, name] of Object.entries(labels)) this.labels.set(Number(index), name);
    for (const [index, { id, uuid }] of Object.entries(engines)) {
      const row = this.#row(Number(index));
      if (row.id !== id) this.#order = null;
      Object.assign(row, { id, uuid });
    }
    if (lost) for (const row of this.rows.values()) row.running.clear(); // some of these ends may be among the lost
    for (const [seq, row, start, end, kind, status, label, id] of bars) {
      if (seq <= this.#latest) continue;
      this.#put({ seq, row, start, end, kind, status, label, id });
    }
    this.#latest = Math.max(this.#latest, next);
    this.waiting = waiting;
    this.lost += lost;
    this.version++;
    if (this.count > KEPT * 1.2) this.#forget();
  }

  #put(bar) {
    const row = this.#row(bar.row);
    if (bar.end === null) {
      row.running.set(bar.id, bar);
      return;
    }
    row.running.delete(bar.id);
    const { ended } = row;
    row.longest = Math.max(row.longest, bar.end - bar.start);
    let place = ended.length; // nearly always the end
    while (place > 0 && ended[place - 1].end > bar.end) place--;
    if (place === ended.length) ended.push(bar);
    else ended.splice(place, 0, bar);
    this.count++;
  }

  #row(index) {
    let row = this.rows.get(index);
    if (!row) {
      row = { index, id: null, uuid: null, ended: [], running: new Map(), longest: 0 };
      this.rows.set(index, row);
      this.#order = null;
    }
    return row;
  }

  #forget() {
    const oldest = this.#latest - 2 * KEPT; // a task counts twice: when it starts, and when it ends;
    this.count = 0;
    for (const row of this.rows.values()) {
      row.ended = row.ended.filter(({ seq }) => seq >= oldest);
      row.longest = row.ended.reduce((longest, { start, end }) => Math.max(longest, end - start), 0);
      this.count += row.ended.length;
    }
  }

  /** Rows in the order of their engines' ids. */
  get order() {
    this.#order ??= [...this.rows.values()].sort(
      (a, b) => (a.id ?? Infinity) - (b.id ?? Infinity) || a.index - b.index,
    );
    return this.#order;
  }

  get running() {
    let n = 0;
    for (const row of this.rows.values()) n += row.running.size;
    return n;
  }

  /** From the first start to the last end; null when there is nothing. */
  get extent() {
    let [first, last] = [Infinity, -Infinity];
    for (const { ended, running } of this.rows.values()) {
      if (ended.length) {
        first = Math.min(first, ended[0].start);
        last = Math.max(last, ended.at(-1).end);
      }
      for (const { start } of running.values()) first = Math.min(first, start);
    }
    return first < Infinity ? [first, last] : null;
  }
}

/** The index of the first bar that ends at a time or after. */
export function firstEndingAt(ended, t) {
  let [low, high] = [0, ended.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ended[middle].end < t) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Bars of a row that are, partly at least, between two times: by their ends, then what runs. */
export function* between(row, from, to) {
  for (let i = firstEndingAt(row.ended, from); i < row.ended.length; i++) {
    const bar = row.ended[i];
    if (bar.end - row.longest > to) break;
    if (bar.start <= to) yield bar;
  }
  for (const bar of row.running.values()) if (bar.start <= to) yield bar;
}
