// Actions: each asks for confirmation, and then shows its outcome.

import { button, h, visible } from "./dom.js";
import { plural, shortTask } from "./format.js";

const LISTED = 8;

/**
 * Ask, act, and show the outcome, in one dialog.
 *
 * `text` is a list of paragraphs and elements; the elements may have fields, which `act` reads. `verb` is the text of
 * the button, or null if there is nothing to do; `act` does the action, and `outcome(result)` describes its result.
 * Returns the result of `act`, or null if the action was not done.
 */
export function confirmed({ title, text, verb, act = null, outcome = null }) {
  return new Promise((resolve) => {
    let result = null;
    const message = h("div", { role: "status", class: "outcome" });
    const cancel = button(verb ? "Go back" : "Close", () => dialog.close(), { autofocus: true });
    const busy = (wanted) => (go.disabled = cancel.disabled = wanted);
    const go = button(
      verb ?? "",
      async () => {
        busy(true);
        message.className = "outcome";
        message.replaceChildren("…");
        try {
          result = await act();
          message.replaceChildren(outcome(result));
          message.classList.add("good");
          busy(false);
          go.remove();
          cancel.textContent = "Close";
          cancel.focus();
        } catch (error) {
          message.classList.add("bad");
          message.replaceChildren(visible(error.message));
          busy(false);
        }
      },
      { class: "danger", hidden: !verb },
    );
    const dialog = h(
      "dialog",
      { "aria-labelledby": "dialog-title" },
      h("h2", { id: "dialog-title" }, title),
      text.map((part) => (typeof part === "string" ? h("p", {}, part) : part)),
      message,
      h("div", { class: "buttons" }, cancel, go),
    );
    dialog.addEventListener("cancel", (event) => cancel.disabled && event.preventDefault()); // Escape
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export function list(ids) {
  const shown = ids.slice(0, LISTED).map((id) => h("li", {}, h("code", {}, id)));
  if (ids.length > LISTED) shown.push(h("li", {}, `and ${plural(ids.length - LISTED, "more task", "more tasks")}`));
  return h("ul", { class: "ids" }, shown);
}

export function abort(hub, ids) {
  return confirmed({
    title: `Abort ${plural(ids.length, "task")}?`,
    text: [
      "Tasks that still wait for an engine are removed from the queue, and their clients get a TaskAborted error. " +
        "Running tasks continue: to end these, cancel them.",
      list(ids),
    ],
    verb: `Abort ${plural(ids.length, "task")}`,
    act: () => hub.act("abort", { msg_ids: ids }),
    outcome: ({ aborted, not_queued: others }) =>
      `${plural(aborted.length, "task was", "tasks were")} aborted.` +
      (others.length ? ` ${plural(others.length, "was", "were")} no longer queued.` : ""),
  });
}

export function resubmit(hub, ids) {
  return confirmed({
    title: `Resubmit ${plural(ids.length, "task")}?`,
    text: [
      "Each task is queued again as a new task with a new msg_id and the same function and arguments. " +
        "The records of the old tasks stay, and name the new tasks.",
      list(ids),
    ],
    verb: `Resubmit ${plural(ids.length, "task")}`,
    act: () => hub.act("resubmit", { msg_ids: ids }),
    outcome: resubmission,
  });
}

function resubmission({ resubmitted, refused = [] }) {
  const pairs = Object.entries(resubmitted);
  return h(
    "div",
    {},
    `${plural(pairs.length, "task was", "tasks were")} resubmitted${pairs.length ? ":" : "."}`,
    h(
      "ul",
      { class: "ids" },
      pairs.slice(0, LISTED).map(([old, fresh]) =>
        h(
          "li",
          {},
          `${shortTask(old)} as `,
          h(
            "a",
            {
              href: `#/tasks/${encodeURIComponent(fresh)}`,
              onclick: (event) => event.target.closest("dialog").close(),
            },
            fresh,
          ),
        ),
      ),
      pairs.length > LISTED && h("li", {}, `and ${plural(pairs.length - LISTED, "more task", "more tasks")}`),
    ),
    refused.length
      ? h("p", {}, `${plural(refused.length, "task", "tasks")} could not be resubmitted: ${refused[0]}`)
      : null,
  );
}

/** Return how many tasks a search `{query, text, state}` finds, by what can be done with them. */
export const found = ({ query, text, state }, hub) =>
  hub.get(`api/count?${new URLSearchParams({ query: JSON.stringify(query), text, state })}`);

/** Abort all tasks that a search `{query, text, state}` finds and that no engine has yet. */
export async function abortFound(hub, search) {
  const { abort: n } = await found(search, hub);
  if (!n)
    return confirmed({ title: "Nothing to abort", text: ["No task that is found waits for an engine."], verb: null });
  return confirmed({
    title: `Abort ${plural(n, "task")}?`,
    text: [
      `${plural(n, "task", "tasks")} of those found still ${n === 1 ? "waits" : "wait"} for an engine. They are removed ` +
        "from the queue, and their clients get a TaskAborted error. Running tasks continue: to end these, cancel them.",
    ],
    verb: `Abort ${plural(n, "task")}`,
    act: () => hub.act("abort", search),
    outcome: ({ aborted }) => `${plural(aborted.length, "task was", "tasks were")} aborted.`,
  });
}

/** Resubmit all finished tasks that a search `{query, text, state}` finds. */
export async function resubmitFound(hub, search) {
  const { resubmit: n } = await found(search, hub);
  if (!n)
    return confirmed({
      title: "Nothing to resubmit",
      text: ["No task that is found has finished, or each was resubmitted already."],
      verb: null,
    });
  return confirmed({
    title: `Resubmit ${plural(n, "task")}?`,
    text: [
      "Each finished task that is found is queued again as a new task, with the same function and arguments. Tasks that " +
        "were resubmitted already are left out.",
    ],
    verb: `Resubmit ${plural(n, "task")}`,
    act: () => hub.act("resubmit", search),
    outcome: resubmission,
  });
}

/** Resubmit all tasks of a group of failures. */
export function resubmitFailures(hub, { group, ename, where, count: n }) {
  return confirmed({
    title: `Resubmit the tasks of ${plural(n, "failure")}?`,
    text: [
      `Each task that failed with ${ename}${where ? ` at ${where}` : ""} is queued again as a new task, with the same ` +
        "function and arguments. Tasks that were resubmitted already, and tasks whose records were purged, are left out.",
    ],
    verb: "Resubmit all of these",
    act: () => hub.act("resubmit", { group }),
    outcome: resubmission,
  });
}

export function purge(hub, ids) {
  return confirmed({
    title: `Purge ${plural(ids.length, "record")}?`,
    text: [
      "The records, results and outputs are deleted permanently. Records of unfinished tasks are kept.",
      list(ids),
    ],
    verb: `Purge ${plural(ids.length, "record")}`,
    act: () => hub.act("purge", { msg_ids: ids }),
    outcome: purged,
  });
}

/** `total` is the number of matching records; null if the hub has not counted them. */
export function purgeFound(hub, query, total) {
  const all = Object.keys(query).length === 0;
  const what = total === null ? "all matching records" : plural(total, "record");
  return confirmed({
    title: all ? "Purge all records?" : `Purge ${what}?`,
    text: [
      all
        ? "The records, results and outputs of all tasks are deleted permanently."
        : "The records, results and outputs of all tasks that match this query are deleted permanently:",
      all ? null : h("pre", {}, JSON.stringify(query, null, 1)),
      "Records of unfinished tasks are kept.",
    ].filter(Boolean),
    verb: all ? "Purge all" : `Purge ${what}`,
    act: () => hub.act("purge", all ? { all: true } : { query }),
    outcome: purged,
  });
}

const purged = ({ purged: n }) => `${plural(n, "record was", "records were")} purged.`;

export function shutdownEngine(hub, engine) {
  const load = (engine.load ?? 0) + (engine.direct ?? 0);
  return confirmed({
    title: `Shut engine ${engine.id} down?`,
    text: [
      `Its process ends. (Its uuid is ${engine.uuid}.)`,
      load
        ? `It has ${plural(load, "request")}. Tasks with retries left go to other engines; the others fail.`
        : "It has no requests now.",
    ],
    verb: `Shut engine ${engine.id} down`,
    act: () => hub.act("shutdown_engine", { uuid: engine.uuid }),
    outcome: () => "The engine was told to shut down.",
  });
}

/** Give up the results that wait for a client that is away. */
export function dropOwed(hub, { client, owed: n }) {
  return confirmed({
    title: `Drop ${plural(n, "result")}?`,
    text: [
      `${plural(n, "result waits", "results wait")} for client ${client}, which is away. If it comes back, the hub will ` +
        "not send them. The records stay, so that the client can still ask for the results.",
    ],
    verb: `Drop ${plural(n, "result")}`,
    act: () => hub.act("drop_owed", { client }),
    outcome: ({ dropped }) => `${plural(dropped, "result was", "results were")} dropped.`,
  });
}
