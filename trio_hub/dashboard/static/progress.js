// The progress of tasks, by label.

import { button, h, reconcile, setAttribute, setText } from "./dom.js";
import { about, count, label, percent } from "./format.js";
import { poll } from "./hub.js";

const PERIOD = 2; // seconds
const FEW = 6;
/** The hub's names for tasks whose labels it does not count separately. */
const NO_LABELS = ["(other)", "(earlier)"];
const IDLE = 60; // seconds after which the row of a label without unfinished tasks may be given to a busy one
const PARTS = ["ok", "failed", "aborted", "running"];

/**
 * Return the labels to show, at most `few`. `before` are those shown now, which keep their places; `idle` says since
 * when, in seconds, each label has had no unfinished tasks.
 */
export function arrange(before, rows, few, idle, now) {
  const byLabel = new Map(rows.map((row) => [row.label, row]));
  const open = ({ running, queued }) => running + queued;
  const shown = before.filter((name) => byLabel.has(name));
  const others = rows.filter((row) => !shown.includes(row.label)).sort((a, b) => open(b) - open(a));
  while (shown.length < few && others.length) shown.push(others.shift().label);
  shown.forEach((name, place) => {
    if (!others.length || open(others[0]) === 0) return;
    if (idle.has(name) && now - idle.get(name) >= IDLE) shown[place] = others.shift().label;
  });
  return shown;
}

/** Return a section that is updated until the signal aborts. */
export function progress(hub, signal) {
  let all = false;
  let labels = [];
  let shown = []; // the labels of the rows, in their order
  const idle = new Map(); // by label: since when all its tasks have been finished, in seconds
  const body = h("tbody");
  const toggle = button(
    "",
    () => {
      all = !all;
      show();
    },
    { class: "quiet" },
  );
  const section = h(
    "section",
    { class: "card scroll-x progress", "aria-label": "Progress by label" },
    h(
      "table",
      {},
      h("caption", {}, "Progress by label"),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col" }, "Label"),
          h("th", { scope: "col" }, "Progress"),
          ["Done", "Failed", "Aborted", "Running", "Queued or waiting", "Mean"].map((title) =>
            h("th", { scope: "col", class: "number" }, title),
          ),
        ),
      ),
      body,
    ),
    toggle,
  );

  function create({ label: value }) {
    const name = label(value);
    const link =
      name && !NO_LABELS.includes(name)
        ? h("a", { href: `#/tasks?${new URLSearchParams({ text: name })}` }, name)
        : name || "no label";
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, link),
      h(
        "td",
        { class: "grow" },
        h(
          "div",
          { class: "meter", role: "img" },
          PARTS.map((part) => h("i", { class: part })),
        ),
      ),
      Array.from({ length: 6 }, () => h("td", { class: "number" })),
    );
  }

  function update(tr, row) {
    const of = Math.max(1, row.submitted);
    const meter = tr.querySelector(".meter");
    PARTS.forEach((part, index) => (meter.children[index].style.width = `${(100 * row[part]) / of}%`));
    setAttribute(meter, "aria-label", `${percent((row.ok + row.failed + row.aborted) / of)} finished`);
    const counts = [row.ok, row.failed, row.aborted, row.running, row.queued].map(count);
    [...counts, about(row.run_seconds)].forEach((text, index) => setText(tr.children[index + 2], text));
  }

  function show() {
    section.hidden = labels.length === 0;
    const now = Date.now() / 1000;
    for (const row of labels) {
      if (row.running + row.queued > 0) idle.delete(row.label);
      else if (!idle.has(row.label)) idle.set(row.label, now);
    }
    shown = arrange(shown, labels, FEW, idle, now);
    const byLabel = new Map(labels.map((row) => [row.label, row]));
    const first = shown.map((name) => byLabel.get(name));
    const rest = labels.filter((row) => !shown.includes(row.label)); // in the order in which they came
    reconcile(body, all ? [...first, ...rest] : first, (row) => label(row.label), create, update);
    toggle.hidden = labels.length <= FEW;
    setText(toggle, all ? "Show few labels" : `Show all ${count(labels.length)} labels`);
  }

  poll(
    async () => {
      ({ labels } = await hub.get("api/labels", signal));
      show();
    },
    PERIOD,
    signal,
    () => {}, // the list of tasks below shows the error
  );
  section.hidden = true;
  return section;
}
