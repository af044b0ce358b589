// The progress of tasks, by label.

import { button, h, reconcile, setAttribute, setText } from "./dom.js";
import { count, label, percent, seconds } from "./format.js";
import { poll } from "./hub.js";

const PERIOD = 2; // seconds
const FEW = 6;
/** The hub's names for tasks whose labels it does not count separately. */
const NO_LABELS = ["(other)", "(earlier)"];
const PARTS = ["ok", "failed", "aborted", "running"];

/** Return a section that is updated until the signal aborts. */
export function progress(hub, signal) {
  let all = false;
  let labels = [];
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
          ["Done", "Failed", "Running", "Queued", "Mean"].map((title) =>
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
      Array.from({ length: 5 }, () => h("td", { class: "number" })),
    );
  }

  function update(tr, row) {
    const of = Math.max(1, row.submitted);
    const meter = tr.querySelector(".meter");
    PARTS.forEach((part, index) => (meter.children[index].style.width = `${(100 * row[part]) / of}%`));
    setAttribute(meter, "aria-label", `${percent((row.ok + row.failed + row.aborted) / of)} finished`);
    const failed = count(row.failed) + (row.aborted ? ` + ${count(row.aborted)} aborted` : "");
    [count(row.ok), failed, count(row.running), count(row.queued), seconds(row.run_seconds)].forEach((text, index) =>
      setText(tr.children[index + 2], text),
    );
  }

  function show() {
    section.hidden = labels.length === 0;
    const active = [...labels].sort((a, b) => b.running + b.queued - a.running - a.queued);
    reconcile(body, all ? active : active.slice(0, FEW), (row) => label(row.label), create, update);
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
