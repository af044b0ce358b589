// The overview: the numbers of the hub and its cluster.

import { confirmed } from "./actions.js";
import { attention } from "./attention.js";
import { Chart, RANGES } from "./charts.js";
import { button, facts, h, setAttribute, setText } from "./dom.js";
import { NOTHING, about, bytes, count, number, percent, plural, rate, seconds } from "./format.js";
import { poll } from "./hub.js";
import { journal } from "./journal.js";
import { pools } from "./pools.js";

const LATENCIES = [
  ["wait", "Until sent"],
  ["run", "Running"],
  ["message", "Message"],
  ["loop", "Loop lag"],
];

const PERIOD = 10; // seconds between two looks at the last hour or day
const WINDOWS = ["10", "60"]; // seconds that the hub's rates cover

export function overview({ hub, parameters, signal }) {
  const tiles = new Map();
  const tile = (name, title, href, kind = "") => {
    const value = h("span", { class: "value" }, NOTHING);
    const notes = [h("span", { class: "note" }), h("span", { class: "note" })];
    tiles.set(name, { value, notes });
    return h("li", { class: `tile ${kind}` }, h("a", { href }, h("span", { class: "title" }, title), value, notes));
  };
  const show = (name, value, ...notes) => {
    setText(tiles.get(name).value, value);
    tiles.get(name).notes.forEach((note, index) => setText(note, notes[index] ?? ""));
  };
  const unfinished = (state) => `#/tasks?state=${state}`;

  const charts = [
    new Chart(
      "Tasks",
      [
        { name: "queued", series: "queued", kind: "one" },
        { name: "waiting", series: "waiting", kind: "three" },
        { name: "running", series: "running", kind: "two" },
      ],
      count,
    ),
    new Chart(
      "Rates",
      [
        { name: "submitted", series: "submitted", kind: "one" },
        { name: "finished", series: "finished", kind: "two" },
        { name: "failed", series: "failed", kind: "bad" },
        { name: "aborted", series: "aborted", kind: "three" },
      ],
      rate,
    ),
    new Chart(
      "Engines",
      [
        { name: "alive", series: "engines", kind: "two" },
        { name: "lost", series: "lost", kind: "bad" },
      ],
      count,
    ),
    new Chart("Memory of the hub", [{ name: "resident", series: "rss", kind: "one" }], bytes),
    new Chart("Event loop", [{ name: "late by", series: "lag", kind: "one" }], about),
    new Chart("Database backlog", [{ name: "records to write", series: "backlog", kind: "one" }], count),
  ];

  const cells = new Map();
  const latencies = h(
    "table",
    {},
    h("caption", {}, "Latencies of the last minute"),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        ["", "p50", "p95", "p99", "count"].map((name) =>
          name ? h("th", { scope: "col", class: "number" }, name) : h("td"),
        ),
      ),
    ),
    h(
      "tbody",
      {},
      LATENCIES.map(([name, title]) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, title),
          ["p50", "p95", "p99", "count"].map((part) => {
            const cell = h("td", { class: "number" }, NOTHING);
            cells.set(`${name}.${part}`, cell);
            return cell;
          }),
        ),
      ),
    ),
  );

  let range = RANGES.find(({ hub: name }) => name && name === parameters.get("range")) ?? RANGES[0];
  let past = null; // the hub's answer for the range
  const choices = RANGES.map((choice) => button(choice.title, () => choose(choice)));
  const trouble = h("p", { class: "trouble", hidden: true });
  const charted = h("section", { class: "charts" }, charts.map((chart) => chart.element));

  function choose(choice) {
    [range, past] = [choice, null];
    const query = range.hub ? `?range=${range.hub}` : "";
    history.replaceState(null, "", `#/overview${query}`);
    trouble.hidden = true;
    showRange();
    ask().catch(failed);
  }

  function showRange() {
    RANGES.forEach((choice, index) => setAttribute(choices[index], "aria-pressed", String(choice === range)));
    setAttribute(charted, "aria-label", `Charts of ${range.name}`);
    if (past?.range === range) for (const chart of charts) chart.update(past.series, range, past.step, hub.now);
    else if (!range.hub && hub.series) for (const chart of charts) chart.update(hub.series, range, 1, hub.series.t.at(-1));
  }

  async function ask() {
    const wanted = range;
    if (!wanted.hub) return;
    const answer = await hub.get(`api/history?range=${wanted.hub}`, signal);
    if (wanted !== range) return; // another range was chosen meanwhile
    past = { ...answer, range: wanted };
    showRange();
  }

  function failed(error) {
    if (signal.aborted) return;
    trouble.hidden = error === null;
    setText(trouble, error === null ? "" : error.message);
  }

  const database = h("div");
  const process = h("div");
  const stop = button("Stop the hub…", () => stopHub(hub), { class: "danger admin-only" });

  const element = h(
    "div",
    { class: "view overview" },
    h("div", { class: "heading" }, h("h1", {}, "Overview"), stop),
    attention(hub, signal),
    h(
      "ul",
      { class: "tiles" },
      tile("queued", "Queued", unfinished("queued")),
      tile("waiting", "Waiting", unfinished("waiting")),
      tile("running", "Running", unfinished("running")),
      tile("done", "Done", "#/tasks?state=ok"),
      tile("failed", "Failed", "#/failures", "bad"),
      tile("aborted", "Aborted", "#/tasks?state=aborted"),
      tile("engines", "Engines", "#/engines"),
      tile("clients", "Clients", "#/clients"),
    ),
    pools(hub, signal),
    h("div", { class: "ranges controls", role: "group", "aria-label": "Time shown in the charts" }, choices),
    trouble,
    charted,
    journal(hub, signal),
    h(
      "div",
      { class: "columns" },
      h("section", { class: "card scroll-x" }, latencies),
      h("section", { class: "card" }, h("h2", {}, "Database"), database),
      h("section", { class: "card" }, h("h2", {}, "Process"), process),
    ),
  );

  const update = () => {
    const { statistics: now, rates, process: own, lost_last_hour: lost } = hub.overview;
    const paces = (name) => WINDOWS.map((window) => `${rate(rates[window][name])} in ${window} s`);
    show("queued", count(now.tasks_queued), ...paces("submitted"));
    show("waiting", count(now.tasks_waiting), now.tasks_paused ? `${count(now.tasks_paused)} more are paused` : "");
    show(
      "running",
      count(now.tasks_running + now.direct_pending),
      now.direct_pending ? `${count(now.direct_pending)} of them direct` : "",
    );
    show("done", count(now.completed), ...paces("finished"));
    show("failed", count(now.failed), ...paces("failed"));
    show("aborted", count(now.aborted), ...paces("aborted"));
    tiles.get("failed").value.classList.toggle("none", now.failed === 0);
    const missing = now.local_engines_missing.length;
    show(
      "engines",
      count(now.engines),
      ...[
        missing && `${count(missing)} of ${count(now.local_engines)} missing`,
        now.engines_drained && `${count(now.engines_drained)} drained`,
        lost && `${count(lost)} lost in the last hour`,
        now.registering && `${count(now.registering)} registering`,
      ].filter(Boolean),
    );
    show("clients", count(hub.overview.clients), now.results_owed ? `${plural(now.results_owed, "result")} owed` : "");

    showRange();

    for (const [name] of LATENCIES) {
      const found = hub.overview.latencies[name];
      for (const part of ["p50", "p95", "p99"]) setText(cells.get(`${name}.${part}`), about(found?.[part] ?? null));
      setText(cells.get(`${name}.count`), count(found?.count ?? null));
    }

    const { database: store } = now;
    database.replaceChildren(
      facts([
        ["Kind", store.kind],
        ["Size", bytes(store.size)],
        ["Backlog", `${plural(store.pending, "record")}, ${bytes(store.pending_bytes)}, ${seconds(store.lag)} old`],
        ["Written", `${plural(store.written, "record")} in ${plural(store.batches, "batch", "batches")}`],
        ["Dropped by limits", count(store.trimmed)],
        ["Last error", store.last_error ?? "none"],
      ]),
    );
    process.replaceChildren(
      facts([
        ["Memory", bytes(own.rss)],
        ["CPU", `${percent(own.cpu)} of a core`],
        ["File descriptors", own.fds_limit ? `${count(own.fds)} of ${count(own.fds_limit)}` : count(own.fds)],
        ["Queued in memory", bytes(now.queue_memory)],
        ["Waiting for subscribers", bytes(now.subscribers_waiting)],
        [
          "Dropped for slow subscribers",
          `${plural(now.subscribers_dropped, "message")}, ${bytes(now.subscribers_dropped_bytes)}`,
        ],
        ["Unreadable messages", count(total(now.wire_errors))],
        ["Messages without effect", count(total(now.ignored))],
        ["Missed heartbeats", number(now.heartbeats_missed)],
        [
          "Engines lost",
          Object.entries(now.engines_lost)
            .filter(([, n]) => n)
            .map(([why, n]) => `${count(n)} ${why}`)
            .join(", ") || "none",
        ],
      ]),
    );
  };
  hub.addEventListener("overview", update, { signal });
  poll(ask, PERIOD, signal, failed);
  showRange();
  if (hub.overview) update();
  return element;
}

const total = (counts) => Object.values(counts).reduce((sum, n) => sum + n, 0);

function stopHub(hub) {
  const { statistics: now } = hub.overview;
  const open = now.tasks_queued + now.tasks_waiting + now.tasks_paused + now.tasks_running + now.direct_pending;
  return confirmed({
    title: "Stop the hub?",
    text: [
      `Clients and ${plural(now.engines, "engine")} are disconnected. ` +
        "Engines that the hub has started are stopped. This page stops updating.",
      open
        ? `${plural(open, "request is", "requests are")} unfinished. They continue only if the hub has a database on ` +
          "disk and is started again with reuse or restore; otherwise they are lost."
        : "All requests are finished.",
    ],
    verb: "Stop the hub",
    act: () => hub.act("stop_hub", {}),
    outcome: () => "The hub is stopping.",
  });
}
