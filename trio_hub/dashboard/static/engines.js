// All engines: their states and loads, and the numbers of registrations.

import { drain, undrain } from "./control.js";
import { button, errorLine, h, setAttribute, setText } from "./dom.js";
import {
  NOTHING,
  age,
  bytes,
  count,
  drainLine,
  label,
  labelLine,
  machine,
  offered,
  poolOf,
  share,
  short,
  shortTask,
} from "./format.js";
import { poll } from "./hub.js";
import { poolsBring, startEngines } from "./nextsteps.js";
import { Table, fillCut, fillLink, fillState } from "./table.js";

const PERIOD = 2; // seconds
const FUNNEL = [
  ["requested", "asked to register"],
  ["replied", "got an id"],
  ["first_heartbeat", "registered"],
  ["stalled", "stalled"],
];

export function engines({ hub, parameters, signal }) {
  let rows = [];
  let kept = [];
  let now = hub.now;
  const chosen = new Set(); // uuids
  const table = new Table({
    caption: "Engines",
    windowed: true,
    key: (row) => row.uuid,
    order: ["id", 1],
    empty: h(
      "div",
      {},
      h("p", {}, "No engine matches, or none is registered."),
      poolsBring(hub),
      startEngines(hub),
      h("p", {}, "The hub starts engines itself with trio-hub serve --engines N."),
    ),
    columns: [
      { id: "choose", title: h("span", { class: "hidden-visually" }, "Choose"), admin: true, fill: fillChoice },
      {
        id: "id",
        title: "Engine",
        number: true,
        heading: true,
        sort: (row) => row.id,
        fill: (cell, row) =>
          fillLink(cell, `#/engines/${encodeURIComponent(row.uuid)}`, row.id ?? short(row.uuid), row.uuid),
      },
      { id: "state", title: "State", sort: (row) => row.state, fill: (cell, row) => fillState(cell, row.state) },
      {
        id: "drain",
        title: "Drained",
        optional: true,
        sort: (row) => row.drain?.by ?? null,
        fill: (cell, row) => fillCut(cell, drainLine(row.drain, now) || NOTHING),
      },
      { id: "host", title: "Host", optional: true, sort: (row) => row.host, text: (row) => row.host ?? NOTHING },
      {
        id: "pid",
        title: "Pid",
        number: true,
        narrow: false,
        optional: true,
        sort: (row) => row.pid,
        text: (row) => row.pid ?? NOTHING,
      },
      {
        id: "cpu",
        title: "CPU",
        number: true,
        optional: true,
        sort: (row) => row.usage?.cpu ?? null,
        text: (row) => share(row.usage?.cpu),
      },
      {
        id: "memory",
        title: "Memory",
        number: true,
        optional: true,
        sort: (row) => row.usage?.rss ?? null,
        text: (row) => bytes(row.usage?.rss),
      },
      {
        id: "machine",
        title: "Its machine",
        number: true,
        narrow: false,
        optional: true,
        sort: (row) => row.usage?.host_cpu ?? null,
        text: (row) => machine(row.usage),
      },
      {
        id: "heart",
        title: "Heartbeat",
        number: true,
        sort: (row) => row.heartbeat_age,
        text: (row) => age(row.heartbeat_age) + (row.missed ? ` (${row.missed} missed)` : ""),
      },
      {
        id: "load",
        title: "Load",
        number: true,
        sort: (row) => row.load + row.direct,
        text: (row) => (row.direct ? `${count(row.load)} + ${count(row.direct)} direct` : count(row.load)),
      },
      { id: "running", title: "Running", sort: (row) => row.running?.since, fill: fillRunning },
      {
        id: "since",
        title: "For",
        number: true,
        sort: (row) => (row.running ? now - row.running.since : null),
        text: (row) => (row.running ? age(now - row.running.since) : NOTHING),
      },
      { id: "done", title: "Done", number: true, sort: (row) => row.done, text: (row) => count(row.done) },
      { id: "failed", title: "Failed", number: true, sort: (row) => row.failed, text: (row) => count(row.failed) },
      {
        id: "block",
        title: "Block",
        narrow: false,
        optional: true,
        sort: (row) => row.block,
        fill: (cell, row) => fillLink(cell, poolOf(row.block), row.block ?? NOTHING),
      },
      {
        id: "offers",
        title: "Offers",
        narrow: false,
        optional: true,
        sort: (row) => offered(row.offers) || null,
        fill: (cell, row) => fillCut(cell, offered(row.offers) || NOTHING),
      },
      { id: "error", title: "Last error", sort: (row) => row.last_error?.t, fill: fillError },
    ],
  });

  const filter = h("input", {
    type: "search",
    id: "engine-filter",
    placeholder: "id, uuid, host, state, block, offer, error",
    value: parameters.get("text") ?? "",
    oninput: () => show(),
  });
  const found = h("output", { class: "muted", for: "engine-filter" });
  const steps = new Map(FUNNEL.map(([name]) => [name, h("strong", {}, NOTHING)]));
  const [trouble, failed] = errorLine();

  function show() {
    const text = filter.value.trim().toLowerCase();
    kept = text ? rows.filter((row) => words(row).includes(text)) : rows;
    setText(
      found,
      kept.length === rows.length ? `${count(rows.length)} engines` : `${count(kept.length)} of ${count(rows.length)}`,
    );
    table.update(kept);
    const there = rows.filter(({ uuid }) => chosen.has(uuid));
    setText(chosenText, there.length ? `${count(there.length)} chosen` : "");
    drainButton.disabled = !there.some(canDrain);
    undrainButton.disabled = !there.some((row) => row.drain);
  }

  function fillChoice(cell, row) {
    const box =
      cell.firstElementChild ??
      cell.appendChild(
        h("input", {
          type: "checkbox",
          onchange: ({ target }) => {
            if (target.checked) chosen.add(target.value);
            else chosen.delete(target.value);
            show();
          },
        }),
      );
    box.value = row.uuid;
    box.checked = chosen.has(row.uuid);
    setAttribute(box, "aria-label", `Choose engine ${row.id ?? short(row.uuid)}`);
  }

  async function load() {
    const answer = await hub.get("api/engines", signal);
    ({ engines: rows, now } = answer);
    for (const [name, element] of steps) setText(element, count(answer.funnel[name]));
    show();
  }

  const canDrain = (row) => row.state !== "lost";
  const act = async (action, wanted) => {
    const there = rows.filter((row) => chosen.has(row.uuid) && wanted(row));
    if ((await action(hub, there)) === null) return;
    chosen.clear();
    load().catch(failed);
  };
  const chosenText = h("span", { role: "status" });
  const drainButton = button("Drain…", () => act(drain, canDrain));
  const undrainButton = button("Undrain…", () => act(undrain, (row) => row.drain !== null));
  const actions = h(
    "span",
    { class: "controls admin-only", role: "group", "aria-label": "Actions" },
    button("Choose all shown", () => {
      for (const { uuid } of kept) chosen.add(uuid);
      show();
    }),
    button("None", () => {
      chosen.clear();
      show();
    }),
    chosenText,
    drainButton,
    undrainButton,
  );

  poll(load, PERIOD, signal, failed);

  return h(
    "div",
    { class: "view fill" },
    h(
      "div",
      { class: "heading" },
      h("h1", {}, "Engines"),
      h(
        "ol",
        { class: "funnel", "aria-label": "Registrations" },
        FUNNEL.map(([name, text]) => h("li", { class: name }, steps.get(name), ` ${text}`)),
      ),
    ),
    h("div", { class: "controls" }, h("label", { for: "engine-filter" }, "Filter"), filter, found, actions),
    trouble,
    table.element,
  );
}

function words(row) {
  return [
    row.usage?.host,
    row.id,
    row.uuid,
    row.host,
    row.pid,
    row.state,
    row.drain && `drained ${drainLine(row.drain)}`,
    offered(row.offers),
    row.block,
    label(row.running?.label),
    row.last_error?.ename,
    row.last_error?.evalue,
  ]
    .join(" ")
    .toLowerCase();
}

function fillRunning(cell, { running }) {
  if (running)
    fillLink(
      cell,
      `#/tasks/${encodeURIComponent(running.msg_id)}`,
      labelLine(running.label) || shortTask(running.msg_id),
      running.msg_id,
    );
  else cell.replaceChildren();
}

function fillError(cell, { last_error: error }) {
  if (error)
    fillLink(
      cell,
      `#/tasks/${encodeURIComponent(error.msg_id)}`,
      `${error.ename}: ${error.evalue}`,
      `${error.ename}: ${error.evalue}`,
    );
  else cell.replaceChildren();
}
