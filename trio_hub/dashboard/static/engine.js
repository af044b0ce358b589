// One engine: its state, its recent tasks, and its history.

import { shutdownEngine } from "./actions.js";
import { drain, undrain } from "./control.js";
import { button, errorLine, facts, h, setText } from "./dom.js";
import {
  NOTHING,
  age,
  bytes,
  clock,
  count,
  drainLine,
  labelLine,
  machine,
  offered,
  poolOf,
  seconds,
  share,
  short,
  shortTask,
} from "./format.js";
import { poll } from "./hub.js";
import { Table, fillLink, fillState } from "./table.js";

const PERIOD = 2; // seconds
const EVENTS = {
  requested: "asked to register",
  replied: "was told its id",
  registered: "is usable",
  stalled: "did not finish its registration",
  lost: "is lost",
  settled: "is settled",
  returned: "came back",
  drained: "is drained",
  undrained: "gets tasks again",
};

export function engine({ hub, id: uuid, signal }) {
  let shown = null;
  const title = h("h1", {}, `Engine ${short(uuid)}`);
  const about = h("div");
  const history = h("ol", { class: "story" });
  const [trouble, failed] = errorLine();
  const afterwards = async (what) => {
    if ((await what) !== null) load().catch(failed);
  };
  const drainButton = button("Drain…", () => afterwards(drain(hub, [shown])), { disabled: true });
  const undrainButton = button("Undrain…", () => afterwards(undrain(hub, [shown])), { disabled: true });
  const shutdown = button("Shut down…", () => shutdownEngine(hub, shown), {
    class: "danger",
    disabled: true,
  });
  const recent = new Table({
    caption: "Recent tasks, newest first",
    key: (row) => row.seq,
    empty: "This engine has had no tasks yet.",
    columns: [
      {
        id: "task",
        title: "Task",
        fill: (cell, row) =>
          fillLink(cell, `#/tasks/${encodeURIComponent(row.msg_id)}`, shortTask(row.msg_id), row.msg_id),
      },
      { id: "state", title: "State", fill: (cell, row) => fillState(cell, row.status) },
      { id: "label", title: "Label", text: (row) => labelLine(row.label) || NOTHING },
      { id: "kind", title: "Queue", narrow: false, text: (row) => row.kind },
      { id: "start", title: "Started", number: true, text: (row) => clock(row.start, hub.now) },
      {
        id: "run",
        title: "Took",
        number: true,
        text: (row) => (row.end === null ? NOTHING : seconds(row.end - row.start)),
      },
    ],
  });

  async function load() {
    shown = await hub.get(`api/engines/${encodeURIComponent(uuid)}`, signal);
    setText(title, `Engine ${shown.id ?? short(uuid)}`);
    drainButton.disabled = shutdown.disabled = shown.state === "lost";
    undrainButton.disabled = !shown.drain;
    const state = h("span");
    fillState(state, shown.state);
    about.replaceChildren(
      facts([
        ["State", state],
        ["Drained", drainLine(shown.drain, hub.now)],
        ["Offers", offered(shown.offers)],
        ["Block", shown.block && h("a", { href: poolOf(shown.block) }, shown.block)],
        ["Leaves", shown.leaves && clock(shown.leaves, hub.now)],
        ["uuid", h("code", {}, shown.uuid)],
        ["Host", shown.host],
        ["Pid", shown.pid],
        ["CPU", shown.usage && `${share(shown.usage.cpu)} of a core`],
        ["Memory", shown.usage && bytes(shown.usage.rss)],
        ["Machine", shown.usage && [shown.usage.host, machine(shown.usage)].filter(Boolean).join(": ")],
        ["Registered", clock(shown.registered, hub.now)],
        ["Heartbeat", `${since(shown.heartbeat_age)}, ${count(shown.missed)} missed`],
        ["Load", `${count(shown.load)} from the queue, ${count(shown.direct)} direct`],
        [
          "Running",
          shown.running && h("span", {}, taskLink(shown.running), `, since ${clock(shown.running.since, hub.now)}`),
        ],
        ["Done", count(shown.done)],
        ["Failed", count(shown.failed)],
        [
          "Last error",
          shown.last_error &&
            h(
              "span",
              {},
              taskLink(shown.last_error, `${shown.last_error.ename}: ${shown.last_error.evalue}`),
              `, ${clock(shown.last_error.t, hub.now)}`,
            ),
        ],
      ]),
    );
    history.replaceChildren(
      ...shown.history.map(({ t, event, detail }) =>
        h(
          "li",
          {},
          h("time", {}, clock(t, hub.now)),
          ` ${EVENTS[event] ?? event}`,
          detail ? h("span", { class: "muted" }, `: ${detail}`) : null,
        ),
      ),
    );
    recent.update(recentRows(shown.recent, shown.labels).reverse());
  }

  poll(load, PERIOD, signal, failed);

  return h(
    "div",
    { class: "view" },
    h("p", { class: "crumbs" }, h("a", { href: "#/engines" }, "Engines")),
    h("div", { class: "heading" }, title, h("span", { class: "buttons admin-only" }, drainButton, undrainButton, shutdown)),
    trouble,
    h(
      "div",
      { class: "columns" },
      h("section", { class: "card" }, h("h2", {}, "Now"), about),
      h("section", { class: "card" }, h("h2", {}, "History"), history),
    ),
    h("section", {}, recent.element),
  );
}

/** How long ago an event was; "now" for less than a second. */
const since = (s) => (s >= 1 ? `${age(s)} ago` : age(s));

function taskLink(task, text = null) {
  return h(
    "a",
    { href: `#/tasks/${encodeURIComponent(task.msg_id)}` },
    text ?? (labelLine(task.label) || shortTask(task.msg_id)),
  );
}

/** Convert bars to rows. An engine runs one task at a time, so the tasks that it has not started are queued. */
function recentRows(bars, labels) {
  let free = 0; // the time since which the engine had nothing else to do
  return bars.map(([seq, , sent, end, kind, status, index, msg_id]) => {
    const start = Math.max(sent, free);
    free = end ?? Infinity;
    if (start === Infinity) return { seq, start: null, end, kind, status: "queued", label: labels[index], msg_id };
    return { seq, start, end, kind, status, label: labels[index], msg_id };
  });
}
