// The overview: the numbers of the hub and its cluster.

import { confirmed } from "./actions.js";
import { attention } from "./attention.js";
import { Chart } from "./charts.js";
import { button, facts, h, reconcile, setAttribute, setText } from "./dom.js";
import { NOTHING, bytes, count, number, percent, plural, rate, seconds } from "./format.js";

const LATENCIES = [
  ["wait", "Waiting"],
  ["run", "Running"],
  ["message", "Message"],
  ["loop", "Loop lag"],
];

export function overview({ hub, signal }) {
  const tiles = new Map();
  const tile = (name, title, href, kind = "") => {
    const value = h("span", { class: "value" }, NOTHING);
    const note = h("span", { class: "note" });
    tiles.set(name, { value, note });
    return h("li", { class: `tile ${kind}` }, h("a", { href }, h("span", { class: "title" }, title), value, note));
  };
  const show = (name, value, note = "") => {
    setText(tiles.get(name).value, value);
    setText(tiles.get(name).note, note);
  };
  const unfinished = (state) => `#/tasks?state=${state}`;

  const charts = [
    new Chart(
      "Tasks",
      [
        { name: "queued", series: "queued", kind: "one" },
        { name: "on dependencies", series: "waiting", kind: "three" },
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
      ],
      rate,
    ),
    new Chart("Engines", [{ name: "alive", series: "engines", kind: "two" }], count),
    new Chart("Memory of the hub", [{ name: "resident", series: "rss", kind: "one" }], bytes),
    new Chart("Event loop", [{ name: "late by", series: "lag", kind: "one" }], seconds),
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

  const warnings = h("ul", { class: "attention", "aria-live": "polite" });
  const database = h("div");
  const process = h("div");
  const stop = button("Stop the hub…", () => stopHub(hub), { class: "danger admin-only" });

  const element = h(
    "div",
    { class: "view overview" },
    h("div", { class: "heading" }, h("h1", {}, "Overview"), stop),
    warnings,
    h(
      "ul",
      { class: "tiles" },
      tile("queued", "Queued", unfinished("queued")),
      tile("waiting", "On dependencies", unfinished("queued")),
      tile("running", "Running", unfinished("running")),
      tile("done", "Done", "#/tasks?state=ok"),
      tile("failed", "Failed", "#/failures", "bad"),
      tile("engines", "Engines", "#/engines"),
      tile("clients", "Clients", "#/clients"),
    ),
    h(
      "section",
      { "aria-label": "The last five minutes", class: "charts" },
      charts.map((chart) => chart.element),
    ),
    h(
      "div",
      { class: "columns" },
      h("section", { class: "card scroll-x" }, latencies),
      h("section", { class: "card" }, h("h2", {}, "Database"), database),
      h("section", { class: "card" }, h("h2", {}, "Process"), process),
    ),
  );

  const update = () => {
    const { statistics: now, rates, process: own } = hub.overview;
    show("queued", count(now.tasks_queued), `${rate(rates.submitted)} submitted`);
    show("waiting", count(now.tasks_waiting));
    show(
      "running",
      count(now.tasks_running + now.direct_pending),
      now.direct_pending ? `${count(now.direct_pending)} of them direct` : "",
    );
    show("done", count(now.completed), `${rate(rates.finished)} finished`);
    show("failed", count(now.failed), `${rate(rates.failed)} failing`);
    tiles.get("failed").value.classList.toggle("none", now.failed === 0);
    show(
      "engines",
      count(now.engines),
      [now.registering && `${now.registering} registering`, now.lost && `${now.lost} lost`].filter(Boolean).join(", "),
    );
    show("clients", count(hub.overview.clients), now.results_owed ? `${plural(now.results_owed, "result")} owed` : "");

    if (hub.series) for (const chart of charts) chart.update(hub.series);

    for (const [name] of LATENCIES) {
      const found = hub.overview.latencies[name];
      for (const part of ["p50", "p95", "p99"]) setText(cells.get(`${name}.${part}`), seconds(found?.[part] ?? null));
      setText(cells.get(`${name}.count`), count(found?.count ?? null));
    }

    const found = attention(hub.overview);
    reconcile(
      warnings,
      found.length ? found : [{ level: "good", text: "No problems found.", href: null }],
      ({ text }) => text.replace(/[\d.,]+/g, "#"), // an alert stays the same element when only its numbers change
      ({ href }) => h("li", {}, href ? h("a", { href }) : h("span")),
      (item, { level, text }) => {
        setAttribute(item, "class", level);
        setText(item.firstChild, text);
      },
    );

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
  if (hub.overview) update();
  return element;
}

const total = (counts) => Object.values(counts).reduce((sum, n) => sum + n, 0);

function stopHub(hub) {
  const { statistics: now } = hub.overview;
  const open = now.tasks_queued + now.tasks_waiting + now.tasks_running + now.direct_pending;
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
