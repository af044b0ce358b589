// The tasks of the stream: what the hub has told of them, by engine.

const KEPT = 100_000;

/**
 * A bar: `{seq, row, start, from, end, kind, status, label, id}`, with `end` null while it runs. It was sent at `start`, and
 * its engine came to it at `from`: an engine does one thing after the other, so not before it had ended the one before.
 *
 * Each row has its `ended` bars by the time of their end, which do not overlap, and those that are `running` by msg_id, the
 * first sent first.
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
      this.#put({ seq, row, start, from: start, end, kind, status, label, id });
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
    let place = ended.length; // nearly always the end
    while (place > 0 && ended[place - 1].end > bar.end) place--;
    if (place > 0) bar.from = Math.max(bar.start, ended[place - 1].end);
    if (place === ended.length) ended.push(bar);
    else {
      ended[place].from = Math.max(ended[place].start, bar.end);
      ended.splice(place, 0, bar);
    }
    this.count++;
  }

  #row(index) {
    let row = this.rows.get(index);
    if (!row) {
      row = { index, id: null, uuid: null, ended: [], running: new Map() };
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

  /** How many tasks run, and how many wait at an engine for its turn. */
  get open() {
    let [running, queued] = [0, 0];
    for (const row of this.rows.values()) {
      if (row.running.size) running++;
      queued += Math.max(0, row.running.size - 1);
    }
    return { running, queued };
  }

  /** From the first start to the last end; null when there is nothing. */
  get extent() {
    let [first, last] = [Infinity, -Infinity];
    for (const { ended, running } of this.rows.values()) {
      if (ended.length) {
        first = Math.min(first, ended[0].from);
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

/** What an engine runs: the first of what it was sent; what came after it waits there. Null if it has nothing. */
export function current(row) {
  const { value: bar } = row.running.values().next();
  if (!bar) return null;
  bar.from = Math.max(bar.start, row.ended.at(-1)?.end ?? 0);
  return bar;
}

/** Bars of a row that are, partly at least, between two times, in order; the one that runs comes last. */
export function* between(row, from, to) {
  for (let i = firstEndingAt(row.ended, from); i < row.ended.length; i++) {
    const bar = row.ended[i];
    if (bar.from > to) return;
    yield bar;
  }
  const running = current(row);
  if (running && running.from <= to) yield running;
}
