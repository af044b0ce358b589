// The events that the hub remembers.

import { button, h, reconcile, setAttribute, setText } from "./dom.js";
import { clock, count } from "./format.js";

const FEW = 10;
const LEVELS = { info: "", warn: "Warning: ", bad: "Error: " };

const create = () =>
  h(
    "li",
    {},
    h("time"),
    h("span", {}, h("span", { class: "hidden-visually" }), h("span"), " ", h("span", { class: "muted" })),
  );

// The sentences of these kinds have the number of events already.
const COUNTED = /^(engine_|blocks_|aborted$|resubmitted$)/;

/** Return how often an event has happened, and since when, unless the sentence says it. */
function repeated({ count: times, kind, t, last }) {
  if (times < 2) return "";
  const since = clock(t) === clock(last) ? "" : ` since ${clock(t)}`;
  return COUNTED.test(kind) ? since && `(${since.trim()})` : `(${count(times)} times${since})`;
}

/** Return a section that is updated until the signal aborts. */
export function journal(hub, signal) {
  let entries = new Map(); // by id
  let seq = 0;
  let started = null;
  let asking = false;
  let all = false;
  let serious = false;
  const list = h("ol", { class: "journal" });
  const trouble = h("p", { class: "trouble", hidden: true });
  const empty = h("p", { class: "muted" });
  const toggle = button("", () => ((all = !all), show()), { class: "quiet" });
  const box = h("input", { type: "checkbox", id: "journal-serious", onchange: () => ((serious = box.checked), show()) });
  const section = h(
    "section",
    { class: "card", "aria-labelledby": "journal-title" },
    h(
      "div",
      { class: "heading" },
      h("h2", { id: "journal-title" }, "Events"),
      h("div", { class: "controls" }, box, h("label", { for: "journal-serious" }, "only warnings and errors")),
    ),
    trouble,
    empty,
    list,
    toggle,
  );

  async function ask() {
    const { journal: latest, started: since } = hub.overview;
    if (since !== started) [entries, seq, started] = [new Map(), 0, since]; // another hub numbers its events anew
    if (asking || latest === seq) return;
    asking = true;
    try {
      const answer = await hub.get(`api/journal?since=${seq}`, signal);
      for (const entry of answer.entries) entries.set(entry.id, entry);
      seq = answer.next;
      trouble.hidden = true;
      show();
    } catch (error) {
      if (signal.aborted) return;
      setText(trouble, error.message);
      trouble.hidden = false;
    } finally {
      asking = false;
    }
  }

  function show() {
    const sorted = [...entries.values()].sort((a, b) => b.seq - a.seq);
    const found = serious ? sorted.filter(({ level }) => level !== "info") : sorted;
    reconcile(
      list,
      all ? found : found.slice(0, FEW),
      ({ id }) => id,
      create,
      (item, entry) => {
        const [time, told] = item.children;
        const [level, text, times] = told.children;
        setAttribute(item, "class", entry.level);
        setText(time, clock(entry.last));
        setText(level, LEVELS[entry.level]);
        setText(text, entry.who ? `${entry.who} ${entry.text}` : entry.text);
        setText(times, repeated(entry));
      },
    );
    empty.hidden = found.length > 0;
    setText(empty, serious && sorted.length ? "No warnings and no errors." : "Nothing has happened yet.");
    toggle.hidden = found.length <= FEW;
    setText(toggle, all ? "Show few events" : `Show all ${count(found.length)} events`);
  }

  hub.addEventListener("overview", ask, { signal });
  if (hub.overview) ask();
  show();
  return section;
}
