// Actions on work that runs, engines and pools: cancel, drain, scale, resume. Each asks first, and then shows its outcome.

import { confirmed, found, list } from "./actions.js";
import { h } from "./dom.js";
import { count, plural } from "./format.js";

const UNITS = { "": 1, s: 1, m: 60, h: 3600, d: 86400, w: 604800 };

/** Return a field for a time, such as "10s", and a function that returns its seconds; null if it is empty. */
function timeField(id, title, placeholder, hint) {
  const input = h("input", { id, autocomplete: "off", placeholder, "aria-describedby": `${id}-hint` });
  const field = h("div", { class: "field" }, h("label", { for: id }, title), input, h("span", { id: `${id}-hint` }, hint));
  const read = () => {
    const text = input.value.trim();
    const [, digits, unit] = /^(\d+(?:\.\d+)?)\s*([smhdw]?)$/.exec(text) ?? [];
    if (text && !digits) throw new Error(`“${text}” is not a time: write it as 30s, 10m or 2h.`);
    return text ? Number(digits) * UNITS[unit] : null;
  };
  return [field, read];
}

const graceField = () =>
  timeField("grace", "Grace", "10s", "The time that a task has to end. If this field is empty: the grace in the task’s rules, or 10 s.");

const WHAT_A_CANCEL_DOES =
  "Tasks that wait are withdrawn. Tasks that run are interrupted; if a task has not ended when the grace is over, its " +
  "engine is killed, and the other tasks of that engine run again. The clients get a TaskCancelled error.";

export function cancel(hub, ids) {
  const [field, grace] = graceField();
  return confirmed({
    title: `Cancel ${plural(ids.length, "task")}?`,
    text: [WHAT_A_CANCEL_DOES, list(ids), field],
    verb: `Cancel ${plural(ids.length, "task")}`,
    act: async () => hub.act("cancel", { msg_ids: ids, grace: grace() }),
    outcome: cancelled,
  });
}

/** Cancel all tasks that a search `{query, text, state}` finds and that have not finished. */
export async function cancelFound(hub, search) {
  const { cancel: n } = await found(search, hub);
  if (!n)
    return confirmed({ title: "Nothing to cancel", text: ["Each task that is found has finished."], verb: null });
  const [field, grace] = graceField();
  return confirmed({
    title: `Cancel ${plural(n, "task")}?`,
    text: [`${plural(n, "task")} of those found ${n === 1 ? "has" : "have"} not finished.`, WHAT_A_CANCEL_DOES, field],
    verb: `Cancel ${plural(n, "task")}`,
    act: async () => hub.act("cancel", { ...search, grace: grace() }),
    outcome: cancelled,
  });
}

function cancelled({ withdrawn, interrupted, finished, unknown }) {
  const parts = [
    [withdrawn, "was withdrawn", "were withdrawn"],
    [interrupted, "is interrupted", "are interrupted"],
    [finished, "had finished", "had finished"],
    [unknown, "is unknown to the hub", "are unknown to the hub"],
  ].filter(([ids]) => ids.length);
  const told = parts.map(([ids, one, several]) => `${plural(ids.length, `task ${one}`, `tasks ${several}`)}.`);
  return told.join(" ") || "No task was cancelled.";
}

/** Drain engines, given as rows of `api/engines`. */
export function drain(hub, engines) {
  const [field, deadline] = timeField(
    "deadline",
    "Deadline",
    "10m",
    "Tasks that still run then are interrupted, and run on other engines. If this field is empty, nothing interrupts them.",
  );
  const shutdown = h("input", { type: "checkbox", id: "then-shutdown" });
  return confirmed({
    title: `Drain ${named(engines)}?`,
    text: [
      "A drained engine gets no new tasks. Its running tasks go on, and it still answers direct requests.",
      field,
      h("p", {}, shutdown, " ", h("label", { for: "then-shutdown" }, "Then shut down, when an engine is idle")),
    ],
    verb: `Drain ${named(engines)}`,
    act: async () =>
      hub.act("drain", { uuids: uuids(engines), deadline: deadline(), then: shutdown.checked ? "shutdown" : "" }),
    outcome: ({ drained }) => `${plural(drained.length, "engine is", "engines are")} drained.`,
  });
}

/** End the drains of engines, given as rows of `api/engines`. */
export const undrain = (hub, engines) =>
  confirmed({
    title: `Undrain ${named(engines)}?`,
    text: ["The engines get tasks again. An engine that was already told to end still ends."],
    verb: `Undrain ${named(engines)}`,
    act: () => hub.act("undrain", { uuids: uuids(engines) }),
    outcome: ({ undrained }) => `${plural(undrained.length, "engine gets", "engines get")} tasks again.`,
  });

const uuids = (engines) => engines.map(({ uuid }) => uuid);
const named = (engines) => (engines.length === 1 ? `engine ${engines[0].id}` : plural(engines.length, "engine"));

/** Change how many engines a pool may have, given as a row of `api/pools`. */
export function scalePool(hub, pool) {
  const [leastField, least] = countField("pool-min", pool.fixed ? "Engines" : "At least", pool.min);
  const [mostField, most] = countField("pool-max", "At most", pool.max);
  mostField.hidden = pool.fixed;
  const reset = h("input", { type: "checkbox", id: "pool-reset" });
  reset.addEventListener("change", () => {
    for (const field of [leastField, mostField]) field.querySelector("input").disabled = reset.checked;
  });
  const wanted = () =>
    reset.checked ? { reset: true } : pool.fixed ? { engines: least() } : { min: least(), max: most() };
  const configured = range(pool.configured_min, pool.configured_max);
  return confirmed({
    title: `Scale pool ${pool.name}?`,
    text: [
      pool.fixed
        ? "The hub starts engines, or ends some, until there are so many."
        : "Between these numbers, the pool has as many engines as the tasks need. It asks for whole blocks of " +
          `${plural(pool.engines_per_block, "engine")}, and gives engines back only when they are idle.`,
      leastField,
      mostField,
      h("p", {}, reset, " ", h("label", { for: "pool-reset" }, `As configured: ${configured}`)),
    ],
    verb: `Scale pool ${pool.name}`,
    act: async () => hub.act("scale_pool", { pool: pool.name, ...wanted() }),
    outcome: ({ min, max }) => `The pool has ${range(min, max)} from now on.`,
  });
}

/** Have a pool ask for blocks again after blocks have failed. */
export const resumePool = (hub, pool) =>
  confirmed({
    title: `Resume pool ${pool.name}?`,
    text: [
      `${plural(pool.failures, "block")} in a row failed${pool.failed_words ? `: ${pool.failed_words}` : ""}. The pool ` +
        "asks for blocks again, at once if tasks need engines.",
    ],
    verb: `Resume pool ${pool.name}`,
    act: () => hub.act("resume_pool", { pool: pool.name }),
    outcome: () => "The pool asks for blocks again.",
  });

/** Return a field for a number of engines, and a function that returns the number. */
function countField(id, title, value) {
  const input = h("input", { id, autocomplete: "off", inputmode: "numeric", value: String(value), size: 8 });
  const read = () => {
    const text = input.value.trim();
    if (!/^\d{1,7}$/.test(text)) throw new Error(`“${text}” is not a number of engines: write it as 8.`);
    return Number(text);
  };
  return [h("div", { class: "field" }, h("label", { for: id }, title), input), read];
}

const range = (least, most) =>
  least === most ? plural(most, "engine") : `${count(least)} to ${plural(most, "engine")}`;
