// The bars of the task stream that the hub has sent, by engine.

const KEPT = 100_000;

/**
 * A bar: `{seq, row, start, from, end, kind, status, label, id}`, with `end` null while it runs. The task was sent at
 * `start`, and its engine started it at `from`. An engine runs one task at a time, so `from` is not before the end of
 * the previous task.
 *
 * Each row has its `ended` bars, ordered by their ends, which do not overlap; and its `running` bars by msg_id, in the
 * order in which they were sent.
 */
export class Bars {
  rows = new Map();
  labels = new Map();
  waiting = 0;
  lost = 0;
  count = 0;
  /** A number that changes with every change of the bars. */
  version = 0;
  #latest = -1;
  #order = null;

  /** Add the bars of a message of the hub. Bars that are known from an earlier message are left out. */
  add({ next, lost, bars, labels, engines, waiting }) {
    for (const [index, name] of Object.entries(labels)) this.labels.set(Number(index), name);
    for (const [index, { id, uuid }] of Object.entries(engines)) {
      const row = this.#row(Number(index));
      if (row.id !== id) this.#order = null;
      Object.assign(row, { id, uuid });
    }
    if (lost) for (const row of this.rows.values()) row.running.clear(); // their ends may be among the lost bars
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
    let place = ended.length; // bars nearly always belong at the end
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

  /** The rows, ordered by engine id. */
  get order() {
    this.#order ??= [...this.rows.values()].sort(
      (a, b) => (a.id ?? Infinity) - (b.id ?? Infinity) || a.index - b.index,
    );
    return this.#order;
  }

  /** The number of running tasks, and of tasks that are queued at engines. */
  get open() {
    let [running, queued] = [0, 0];
    for (const row of this.rows.values()) {
      if (row.running.size) running++;
      queued += Math.max(0, row.running.size - 1);
    }
    return { running, queued };
  }

  /** The times of the first start and the last end; null if there are no bars. */
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

/** Return the index of the first bar that ends at a time or later. */
export function firstEndingAt(ended, t) {
  let [low, high] = [0, ended.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ended[middle].end < t) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Return the running bar of a row: the first that was sent; the others are queued. Null if the engine has none. */
export function current(row) {
  const { value: bar } = row.running.values().next();
  if (!bar) return null;
  bar.from = Math.max(bar.start, row.ended.at(-1)?.end ?? 0);
  return bar;
}

/** Yield the bars of a row that overlap a period, in order; the running one comes last. */
export function* between(row, from, to) {
  for (let i = firstEndingAt(row.ended, from); i < row.ended.length; i++) {
    const bar = row.ended[i];
    if (bar.from > to) return;
    yield bar;
  }
  const running = current(row);
  if (running && running.from <= to) yield running;
}
