// Tasks: search by text, state and query, page by page; and actions on chosen tasks.

import { abort, abortFound, purge, purgeFound, resubmit, resubmitFound } from "./actions.js";
import { cancel, cancelFound } from "./control.js";
import { button, errorLine, h, setAttribute, setText } from "./dom.js";
import { NOTHING, count, elapsed, exact, labelLine, plural, seconds, short, shortTask } from "./format.js";
import { poll } from "./hub.js";
import { submitTasks } from "./nextsteps.js";
import { policies } from "./policies.js";
import { progress } from "./progress.js";
import { Table, fillCut, fillLink, fillState } from "./table.js";

const PERIOD = 3; // seconds
const PAGE = 100;
const ENOUGH = 25; // the least number of rows to show at once, if there are so many
const PARTS = 20; // the maximum number of answers to wait for until there are enough rows
/** By state: its title in the form, and the query for its records. */
const STATES = {
  "": ["any state", {}],
  unfinished: ["unfinished", { completed: null }],
  queued: ["queued", { completed: null }],
  waiting: ["waiting", { completed: null }],
  paused: ["paused", { completed: null }],
  running: ["running", { completed: null }],
  ok: ["ok", { "result_content.status": "ok" }],
  failed: ["failed", { completed: { $ne: null }, "result_content.status": { $nin: ["ok", "aborted"] } }],
  aborted: ["aborted", { "result_content.status": "aborted" }],
};

/** Records do not tell these states apart, but the hub does. So a search sends the state to the hub, with the query. */
const BY_HUB = ["queued", "waiting", "paused", "running"];

/** Return the query of a form: the written query combined with the state. Throws a SyntaxError with the reason. */
export function wholeQuery(written, state) {
  let query = {};
  if (written.trim()) {
    query = JSON.parse(written);
    if (query === null || typeof query !== "object" || Array.isArray(query))
      throw new SyntaxError('a query is a dict, such as {"label": "night"}');
  }
  for (const key of Object.keys(STATES[state][1]))
    if (key in query) throw new SyntaxError(`the state also sets "${key}": choose “any state”`);
  return { ...query, ...STATES[state][1] };
}

export function tasks({ hub, parameters, signal }) {
  let rows = [];
  let next = null;
  let total = null;
  let asked = 0; // the number of the latest request: answers to earlier requests are ignored
  let query = {};
  const chosen = new Set();

  const given = parameters.get("state") ?? "";
  const text = h("input", {
    type: "search",
    id: "task-text",
    placeholder: "msg_id, label, engine, client",
    value: parameters.get("text") ?? "",
  });
  const state = h(
    "select",
    { id: "task-state" },
    Object.entries(STATES).map(([name, [title]]) => h("option", { value: name, selected: name === given }, title)),
  );
  const written = h("input", {
    id: "task-query",
    class: "code",
    spellcheck: "false",
    autocomplete: "off",
    placeholder: '{"label": {"$glob": "night-*"}}',
    value: parameters.get("query") ?? "",
    "aria-describedby": "query-error",
  });
  const wrong = h("p", { id: "query-error", class: "wrong", role: "alert" });
  const [trouble, failed] = errorLine();
  const found = h("output", { class: "muted", for: "task-text task-state task-query" });
  const more = button("More", () => load(true));

  const emptyText = h("p", {}, "No matching tasks.");
  const emptyStep = submitTasks(hub);
  const table = new Table({
    caption: "Tasks, newest first",
    key: (row) => row.msg_id,
    empty: h("div", {}, emptyText, emptyStep),
    columns: [
      { id: "choose", title: h("span", { class: "hidden-visually" }, "Choose"), admin: true, fill: fillChoice },
      {
        id: "task",
        title: "Task",
        heading: true,
        fill: (cell, row) =>
          fillLink(cell, `#/tasks/${encodeURIComponent(row.msg_id)}`, shortTask(row.msg_id), row.msg_id),
      },
      { id: "state", title: "State", fill: (cell, row) => fillState(cell, row.state) },
      { id: "label", title: "Label", fill: (cell, row) => fillCut(cell, labelLine(row.label) || NOTHING) },
      { id: "error", title: "Error", fill: (cell, row) => fillCut(cell, errorText(row.error)) },
      { id: "waited", title: "Waited", number: true, text: (row) => waited(row, hub.now) },
      { id: "took", title: "Took", number: true, text: (row) => took(row, hub.now) },
      { id: "engine", title: "Engine", number: true, fill: fillEngine },
      { id: "submitted", title: "Submitted", number: true, text: (row) => exact(row.submitted, hub.now) },
      { id: "kind", title: "Queue", narrow: false, text: (row) => row.kind },
      { id: "client", title: "Client", narrow: false, text: (row) => short(row.client) },
    ],
  });

  function fillChoice(cell, { msg_id: id }) {
    const box =
      cell.firstElementChild ??
      cell.appendChild(
        h("input", { type: "checkbox", onchange: (event) => choose(event.target.value, event.target.checked) }),
      );
    box.value = id;
    box.checked = chosen.has(id);
    setAttribute(box, "aria-label", `Choose task ${shortTask(id)}`);
  }

  function choose(id, wanted) {
    if (wanted) chosen.add(id);
    else chosen.delete(id);
    tell();
  }

  const ids = () => [...chosen];
  const act = async (what) => {
    if ((await what) === null) return;
    chosen.clear();
    load();
  };
  const chosenText = h("span", { role: "status" });
  const chosenButtons = [
    button("Cancel…", () => act(cancel(hub, ids()))),
    button("Abort…", () => act(abort(hub, ids()))),
    button("Resubmit…", () => act(resubmit(hub, ids()))),
    button("Purge…", () => act(purge(hub, ids())), { class: "danger" }),
  ];
  const stateForHub = () => (BY_HUB.includes(state.value) ? state.value : "");
  const search = () => ({ query, text: text.value.trim(), state: stateForHub() });
  const all = (what) => act(what).catch(failed);
  const allButtons = [
    button("Cancel all matching…", () => all(cancelFound(hub, search()))),
    button("Abort all matching…", () => all(abortFound(hub, search()))),
    button("Resubmit all matching…", () => all(resubmitFound(hub, search()))),
  ];
  const purgeAll = button("Purge all matching…", () => all(purgeFound(hub, query, total)), { class: "danger" });
  const actions = h(
    "div",
    { class: "controls admin-only", role: "group", "aria-label": "Actions" },
    button("Choose all shown", () => {
      for (const { msg_id: id } of rows) chosen.add(id);
      show();
    }),
    button("None", () => {
      chosen.clear();
      show();
    }),
    chosenText,
    chosenButtons,
    allButtons,
    purgeAll,
  );

  function tell() {
    setText(chosenText, chosen.size ? `${count(chosen.size)} chosen` : "");
    for (const element of chosenButtons) element.disabled = chosen.size === 0;
    for (const element of allButtons) element.disabled = wrong.textContent !== "";
    purgeAll.disabled = text.value.trim() !== "" || wrong.textContent !== "";
    purgeAll.title = text.value.trim() ? "Purging works with a query only: clear the text." : "";
  }

  function show() {
    // "total" is known only without filters
    setText(emptyText, total === 0 ? "No client has submitted a task yet." : "No matching tasks.");
    emptyStep.classList.toggle("dispensable", total !== 0);
    table.update(rows);
    more.hidden = next === null;
    setText(
      found,
      total === null
        ? `${plural(rows.length, "task")} ${next === null ? "found" : "shown; there may be more"}`
        : `${count(rows.length)} of ${plural(total, "task")}`,
    );
    tell();
  }

  function complain(problem) {
    setText(wrong, problem);
    setAttribute(written, "aria-invalid", problem ? "true" : null);
    tell();
  }

  async function load(further = false) {
    const number = ++asked;
    try {
      query = wholeQuery(written.value, state.value);
    } catch (error) {
      complain(`This is not a query: ${error.message}.`);
      return;
    }
    const ask = new URLSearchParams({ limit: PAGE });
    if (Object.keys(query).length) ask.set("query", JSON.stringify(query));
    if (text.value.trim()) ask.set("text", text.value.trim());
    if (stateForHub()) ask.set("state", stateForHub());
    let before = further ? next : null;
    let fresh = [];
    try {
      // If few records match, each answer covers only a part of the records.
      for (let part = 0; part < PARTS && fresh.length < ENOUGH && (part === 0 || before !== null); part++) {
        if (before !== null) ask.set("before", before);
        const answer = await hub.get(`api/tasks?${ask}`, signal);
        if (number !== asked) return;
        fresh = [...fresh, ...answer.rows];
        ({ next: before, total } = answer);
      }
      rows = further ? [...rows, ...fresh] : fresh;
      next = before;
      complain("");
      show();
    } catch (error) {
      if (signal.aborted || number !== asked) return;
      if (error.status !== 400) throw error;
      complain(error.message);
    }
  }

  let typing = 0;
  function changed() {
    const kept = new URLSearchParams(
      Object.entries({ text: text.value.trim(), state: state.value, query: written.value.trim() }).filter(
        ([, value]) => value,
      ),
    );
    history.replaceState(null, "", kept.size ? `#/tasks?${kept}` : "#/tasks");
    clearTimeout(typing);
    typing = setTimeout(() => attempt(), 250);
  }
  const attempt = () => load().then(() => failed(null), failed);
  signal.addEventListener("abort", () => clearTimeout(typing));

  // The times of unfinished tasks go on between two answers of the hub.
  hub.addEventListener("overview", () => rows.some((row) => row.completed === null) && table.update(rows), { signal });
  // The list is not updated while the user reads further pages or has chosen tasks.
  poll(() => (rows.length <= PAGE && chosen.size === 0 && !wrong.textContent ? load() : null), PERIOD, signal, failed);
  tell();

  return h(
    "div",
    { class: "view" },
    h("div", { class: "heading" }, h("h1", {}, "Tasks")),
    progress(hub, signal),
    h(
      "form",
      { class: "filters", role: "search", oninput: changed, onsubmit: (event) => (event.preventDefault(), attempt()) },
      h("div", {}, h("label", { for: "task-text" }, "Text"), text),
      h("div", {}, h("label", { for: "task-state" }, "State"), state),
      h("div", { class: "grow" }, h("label", { for: "task-query" }, "Query"), written, wrong),
    ),
    trouble,
    actions,
    h("p", { class: "found" }, found),
    table.element,
    h("p", {}, more),
    policies(hub, signal),
  );
}

const errorText = (error) => (error ? [error.ename, error.evalue].filter(Boolean).join(": ") : "");

/** Return how long a task waited until its engine started it, or how long it has waited. */
function waited({ submitted, started, completed }, now) {
  if (started !== null) return seconds(Math.max(0, started - submitted));
  return completed === null ? elapsed(now - submitted) : NOTHING;
}

/** Return how long a task took, or how long it has run. */
function took({ state, started, completed }, now) {
  if (started === null) return NOTHING;
  if (completed !== null) return seconds(completed - started);
  return state === "running" ? elapsed(now - started) : NOTHING;
}

function fillEngine(cell, { engine_id: id, engine_uuid: uuid }) {
  if (uuid) fillLink(cell, `#/engines/${encodeURIComponent(uuid)}`, id ?? short(uuid), uuid);
  else cell.replaceChildren(NOTHING);
}
