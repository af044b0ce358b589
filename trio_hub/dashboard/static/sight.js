// The visible part of the task stream as a table.

import { between } from "./bars.js";
import { h } from "./dom.js";
import { count, percent } from "./format.js";
import { Table, fillLink } from "./table.js";

/** Return a folded table, which is filled only while it is unfolded. */
export function inSight() {
  const table = new Table({
    caption: "Visible engines",
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
      { id: "has", title: "Running or queued", number: true, text: (row) => count(row.has) },
    ],
  });
  const element = h("details", {}, h("summary", {}, "Show the visible part as a table"), table.element);

  function update(timeline, now) {
    if (!element.open) return;
    table.update([...timeline.visible()].map(([row]) => measure(row, timeline.from, Math.min(timeline.to, now))));
  }
  return { element, update };
}

/** Return the part of a period in which an engine had tasks to run, and their numbers. */
function measure(row, from, to) {
  let [tasks, failed, busy] = [0, 0, 0];
  for (const { from: start, end, status } of between(row, from, to)) {
    tasks++;
    if (status === "failed") failed++;
    busy += Math.max(0, Math.min(end ?? to, to) - Math.max(start, from));
  }
  const { index, id, uuid, running } = row;
  return { index, id, uuid, tasks, failed, has: running.size, busy: to > from ? busy / (to - from) : 0 };
}
