// What is in sight of the task stream, as a table: the same in words.

import { between } from "./bars.js";
import { h } from "./dom.js";
import { count, percent } from "./format.js";
import { Table, fillLink } from "./table.js";

/** A table that is folded away, and not filled until it is unfolded. */
export function inSight() {
  const table = new Table({
    caption: "Engines in sight",
    key: (row) => row.index,
    columns: [
      {
        id: "engine",
        title: "Engine",
        number: true,
        fill: (cell, row) => fillLink(cell, `#/engines/${encodeURIComponent(row.uuid)}`, row.id ?? "?"),
      },
      { id: "busy", title: "Busy", number: true, text: (row) => percent(row.busy) },
      { id: "tasks", title: "Tasks", number: true, text: (row) => count(row.tasks) },
      { id: "failed", title: "Failed", number: true, text: (row) => count(row.failed) },
      { id: "running", title: "Running", number: true, text: (row) => count(row.running) },
    ],
  });
  const element = h("details", {}, h("summary", {}, "What is in sight, as a table"), table.element);

  function update(timeline, now) {
    if (!element.open) return;
    table.update([...timeline.visible()].map(([row]) => measure(row, timeline.from, Math.min(timeline.to, now))));
  }
  return { element, update };
}

/** How much of a time an engine had something to run, and what. */
function measure(row, from, to) {
  let [tasks, failed, busy, until] = [0, 0, 0, from];
  const found = [...between(row, from, to)].sort((a, b) => a.start - b.start);
  for (const { start, end, status } of found) {
    tasks++;
    if (status === "error") failed++;
    const stop = Math.min(end ?? to, to);
    busy += Math.max(0, stop - Math.max(start, until)); // what overlaps counts once
    until = Math.max(until, stop);
  }
  const { index, id, uuid, running } = row;
  return { index, id, uuid, tasks, failed, running: running.size, busy: to > from ? busy / (to - from) : 0 };
}
