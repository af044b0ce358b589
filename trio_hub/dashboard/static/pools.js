// The pools: a section of the overview, and one pool with its blocks.

import { resumePool, scalePool } from "./control.js";
import { button, errorLine, facts, h, setText } from "./dom.js";
import { NOTHING, age, clock, count, number, plural, seconds } from "./format.js";
import { poll } from "./hub.js";
import { Table, fillCut, fillLink, fillState } from "./table.js";

const PERIOD = 2; // seconds

/** What a pool does, in a word. */
function stateOf(pool) {
  if (pool.is_stopped) return "stopped";
  if (pool.paused_until !== null || pool.grow.word === "probing") return "paused";
  if (pool.grow.word === "grows") return "growing";
  if (["shrinks", "draining"].includes(pool.shrink.word)) return "shrinking";
  return "steady";
}

const range = (least, most) => (least === most ? count(most) : `${count(least)} to ${count(most)}`);
const isScaled = (pool) => pool.min !== pool.configured_min || pool.max !== pool.configured_max;
const hours = (pool) => pool.engine_seconds / 3600;
const sentence = (name, { text }) => `${name} ${text}${text.endsWith(".") ? "" : "."}`;

/** Why a pool does not grow; and, if it has engines, why it does not shrink. */
const reasons = (pool) =>
  [sentence(pool.name, pool.grow), pool.there > 0 && sentence("It", pool.shrink)].filter(Boolean).join(" ");

/** Return a section with all pools, which is updated until the signal aborts. It is hidden if no pool is elastic. */
export function pools(hub, signal) {
  const figure = (id, title, narrow = true) => ({ id, title, number: true, narrow, text: (row) => count(row[id]) });
  const table = new Table({
    caption: "Pools",
    key: (row) => row.name,
    columns: [
      {
        id: "name",
        title: "Pool",
        fill: (cell, row) => fillLink(cell, `#/pools/${encodeURIComponent(row.name)}`, row.name),
      },
      { id: "state", title: "State", fill: (cell, row) => fillState(cell, stateOf(row)) },
      { id: "size", title: "Size", number: true, narrow: false, text: (row) => range(row.min, row.max) },
      figure("wanted", "Wanted"),
      figure("asked", "Asked for"),
      figure("coming", "Coming"),
      figure("there", "There"),
      figure("idle", "Idle"),
      { id: "hours", title: "Engine-hours", number: true, text: (row) => number(hours(row)) },
      {
        id: "cost",
        title: "Cost",
        number: true,
        optional: true,
        sort: (row) => (row.cost === 1 ? null : hours(row) * row.cost),
        text: (row) => number(hours(row) * row.cost),
      },
      { id: "why", title: "Why", narrow: false, fill: fillSentence },
    ],
  });
  const section = h("section", {}, h("h2", {}, "Pools"), table.element);
  const show = () => {
    const found = hub.overview?.pools ?? [];
    section.hidden = found.every((pool) => pool.fixed);
    if (!section.hidden) table.update(found);
  };
  hub.addEventListener("overview", show, { signal });
  show();
  return section;
}

function fillSentence(cell, row) {
  const text = cell.firstElementChild ?? cell.appendChild(h("span", { class: "sentence" }));
  setText(text, reasons(row));
}

/** One pool: its numbers, its settings, and its blocks. */
export function pool({ hub, id: name, signal }) {
  let shown = null;
  const about = h("div");
  const settings = h("div");
  const so_far = h("div");
  const failure = h("p", { class: "callout", hidden: true });
  const [trouble, failed] = errorLine();
  const afterwards = async (what) => {
    if ((await what) !== null) load().catch(failed);
  };
  const scale = button("Scale…", () => afterwards(scalePool(hub, shown)), { disabled: true });
  const resume = button("Resume…", () => afterwards(resumePool(hub, shown)), { disabled: true });
  const time = (id, title) => ({ id, title, number: true, sort: (row) => row[id], text: (row) => clock(row[id], hub.now) });
  const blocks = new Table({
    caption: "Blocks",
    key: (row) => row.block,
    order: ["asked", -1],
    empty: "The pool has no blocks now.",
    columns: [
      {
        id: "block",
        title: "Block",
        sort: (row) => row.block,
        fill: (cell, row) => fillLink(cell, `#/engines?${new URLSearchParams({ text: row.block })}`, row.block),
      },
      { id: "state", title: "State", sort: (row) => row.state, fill: (cell, row) => fillState(cell, row.state) },
      { id: "job", title: "Job", sort: (row) => row.job, text: (row) => row.job || NOTHING },
      {
        id: "engines",
        title: "Engines",
        number: true,
        sort: (row) => row.engines,
        text: ({ started, arrived, engines }) =>
          started === null ? count(engines) : `${count(arrived)} of ${count(engines)} came`,
      },
      time("asked", "Asked for"),
      time("started", "Started"),
      { id: "words", title: "The batch system says", fill: (cell, row) => fillCut(cell, row.words || NOTHING) },
    ],
  });

  async function load() {
    shown = await hub.get(`api/pools/${encodeURIComponent(name)}`, signal);
    const { now } = shown;
    scale.disabled = false;
    resume.disabled = !shown.failures;
    failure.hidden = !shown.failures;
    setText(failure, shown.failures ? failureLine(shown, now) : "");
    const state = h("span");
    fillState(state, stateOf(shown));
    about.replaceChildren(
      facts([
        ["State", state],
        ["Wanted", plural(shown.wanted, "engine")],
        ["Asked for", plural(shown.asked, "engine")],
        ["Coming", plural(shown.coming, "engine")],
        ["There", `${plural(shown.there, "engine")}, ${count(shown.idle)} idle, ${count(shown.draining)} drained`],
        ["Growing", sentence("It", shown.grow)],
        ["Shrinking", sentence("It", shown.shrink)],
        ["Batch system", shown.unanswered && `does not answer: ${shown.unanswered}`],
      ]),
    );
    settings.replaceChildren(
      facts([
        ["Launcher", shown.launcher],
        ["Engines", range(shown.min, shown.max)],
        ["Configured", isScaled(shown) && range(shown.configured_min, shown.configured_max)],
        ["Engines per block", count(shown.engines_per_block)],
        ["Blocks in the queue", shown.backlog !== null && `at most ${count(shown.backlog)}`],
        ["Given back when idle for", shown.fixed ? "never" : seconds(shown.idle_timeout)],
      ]),
    );
    so_far.replaceChildren(
      facts([
        ["Engine-hours", number(hours(shown))],
        ["Cost", shown.cost !== 1 && `${number(hours(shown) * shown.cost)} (${number(shown.cost)} per engine-hour)`],
        ["Blocks submitted", count(shown.counts.submitted)],
        ["Blocks refused", count(shown.counts.refused)],
        ["Blocks failed", count(shown.counts.failed)],
        ["Blocks ended", count(shown.counts.ended)],
        ["Blocks cancelled", count(shown.counts.cancelled)],
      ]),
    );
    blocks.update(shown.blocks);
  }

  poll(load, PERIOD, signal, failed);

  return h(
    "div",
    { class: "view" },
    h("p", { class: "crumbs" }, h("a", { href: "#/overview" }, "Overview")),
    h(
      "div",
      { class: "heading" },
      h("h1", {}, `Pool ${name}`),
      h("span", { class: "buttons admin-only" }, scale, resume),
    ),
    trouble,
    failure,
    h(
      "div",
      { class: "columns" },
      h("section", { class: "card" }, h("h2", {}, "Now"), about),
      h("section", { class: "card" }, h("h2", {}, "Settings"), settings),
      h("section", { class: "card" }, h("h2", {}, "So far"), so_far),
    ),
    h("section", {}, blocks.element),
  );
}

/** What is wrong with a pool whose last blocks have failed, with the words of the batch system. */
function failureLine(pool, now) {
  const n = pool.failures;
  const failed = n === 1 ? "The last block has failed" : `The last ${count(n)} blocks have failed`;
  const words = pool.failed_words ? `: ${pool.failed_words.replace(/\.\s*$/, "")}.` : ".";
  if (pool.is_stopped) return `${failed}${words} The pool asks for no more blocks. Mend the cause, then resume the pool.`;
  const left = pool.paused_until - now;
  return `${failed}${words}${left > 0 ? ` The pool may ask for the next block in ${age(left)}.` : ""}`;
}
