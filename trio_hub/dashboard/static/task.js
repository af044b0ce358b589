// All details of one task.

import { abort, purge, resubmit } from "./actions.js";
import { cancel } from "./control.js";
import { button, errorLine, facts, h, setText } from "./dom.js";
import { count, elapsed, exact, labelLine, ruleLine, seconds, short, shortTask } from "./format.js";
import { poll } from "./hub.js";
import { fillState } from "./table.js";
import { terminal } from "./terminal.js";

const PERIOD = 1.5; // seconds
const FINISHED = ["ok", "failed", "aborted"];

export function task({ hub, id, signal }) {
  let row = null;
  let known = ""; // what is shown: it is drawn again only when it changes, so that selected text stays selected
  const title = h("h1", {}, `Task ${shortTask(id)}`);
  const state = h("span");
  const content = h("div", { class: "sections" });
  const lasting = h("span"); // how long the task has waited or run
  const tick = () => row && setText(lasting, elapsed(hub.now - (row.state === "running" ? row.started : row.submitted)));
  const [trouble, show] = errorLine();
  const afterwards = async (what) => {
    if ((await what) !== null) load().catch(failed);
  };
  const buttons = {
    cancel: button("Cancel…", () => afterwards(cancel(hub, [id]))),
    abort: button("Abort…", () => afterwards(abort(hub, [id]))),
    resubmit: button("Resubmit…", () => afterwards(resubmit(hub, [id]))),
    purge: button("Purge…", () => afterwards(purge(hub, [id])), { class: "danger" }),
  };

  async function load() {
    const found = await hub.get(`api/tasks/${encodeURIComponent(id)}`, signal);
    row = found.row;
    const finished = FINISHED.includes(row.state);
    setText(title, labelLine(row.label) ? `Task ${shortTask(id)}: ${labelLine(row.label)}` : `Task ${shortTask(id)}`);
    fillState(state.parentNode, row.state);
    buttons.cancel.disabled = finished || found.cancelled !== null;
    buttons.abort.disabled = finished || row.state === "running";
    buttons.resubmit.disabled = buttons.purge.disabled = !finished;
    const text = JSON.stringify(found);
    if (text !== known) content.replaceChildren(...sections(found, hub.now, lasting));
    known = text;
    tick();
  }

  function failed(error) {
    show(error);
    if (error?.status === 404 && row) content.classList.add("dim"); // it was purged while this page showed it
  }

  poll(load, PERIOD, signal, failed);
  hub.addEventListener("overview", tick, { signal });

  return h(
    "div",
    { class: "view" },
    h("p", { class: "crumbs" }, h("a", { href: "#/tasks" }, "Tasks")),
    h(
      "div",
      { class: "heading" },
      title,
      h("span", {}, state),
      h("span", { class: "buttons admin-only" }, Object.values(buttons)),
    ),
    trouble,
    content,
  );
}

function* sections(
  {
    row,
    story,
    why_waiting: why,
    waits_for: before,
    waits_for_more: further,
    stdout,
    stderr,
    stdout_left_out: noStdout,
    stderr_left_out: noStderr,
    outputs,
    result,
    error,
    cancelled,
    header,
    metadata,
    resubmitted_as: later,
    resubmission_of: earlier,
    rules,
    policies,
    attempts,
    explained,
    explained_more: unexplained,
  },
  now,
  lasting,
) {
  if (why) {
    // The hub's text names the dependencies, too; here each is named once, as a link.
    const reason = before.length
      ? ["it depends on ", ...before.map((id, place) => [place ? ", " : "", link(id)]).flat()]
      : [why];
    if (further) reason.push(` and ${count(further)} more`);
    yield h("p", { class: "callout" }, h("strong", {}, "Why it waits: "), reason);
  }
  if (error) {
    yield h(
      "section",
      { class: "card bad" },
      h("h2", {}, `${error.ename}: ${error.evalue}`),
      error.traceback && output("Traceback", error.traceback),
    );
  }
  yield h(
    "div",
    { class: "columns" },
    h(
      "section",
      { class: "card" },
      h("h2", {}, "About"),
      facts([
        ["msg_id", h("code", {}, row.msg_id)],
        ["Queue", row.kind],
        ["Label", labelLine(row.label)],
        ["Submitted", exact(row.submitted, now)],
        ["Started", row.started && exact(row.started, now)],
        ["Completed", row.completed && exact(row.completed, now)],
        ["Waited", row.started && seconds(Math.max(0, row.started - row.submitted))],
        ["Took", row.started && row.completed && seconds(row.completed - row.started)],
        ["Running for", row.state === "running" && row.started && lasting],
        ["Waiting for", ["queued", "waiting", "paused"].includes(row.state) && lasting],
        [
          "Engine",
          row.engine_uuid &&
            h(
              "a",
              { href: `#/engines/${encodeURIComponent(row.engine_uuid)}`, title: row.engine_uuid },
              row.engine_id ?? short(row.engine_uuid),
            ),
        ],
        ["Client", row.client && h("code", {}, row.client)],
        ["Rules", ruleLine(rules)],
        ["Policies", Array.isArray(policies) ? policies.join(", ") : null],
        ["Cancelled by", cancelled?.by],
        ["Cancelled at", cancelled && exact(cancelled.asked, now)],
        ["What the cancel took", cancelled?.took],
        ["Attempts", attempts ? count(attempts) : null],
        ["Result", result],
        ["Resubmitted as", later?.length ? h("span", {}, later.map((id) => [link(id), " "]).flat()) : null],
        ["Resubmission of", earlier && link(earlier)],
      ]),
    ),
    h(
      "section",
      { class: "card" },
      h("h2", {}, "History"),
      h(
        "ol",
        { class: "story" },
        story.map(({ t, what, detail }) =>
          h(
            "li",
            {},
            h("time", {}, exact(t, now)),
            ` ${what}`,
            detail ? h("span", { class: "muted" }, `: ${detail}`) : null,
          ),
        ),
      ),
    ),
  );
  if (explained.length) yield placing(explained, unexplained);
  if (stdout) yield output("Output (stdout)", stdout, rest("stdout", noStdout, row.msg_id));
  if (stderr) yield output("Output (stderr)", stderr, rest("stderr", noStderr, row.msg_id));
  for (const text of outputs ?? []) yield output("Displayed", text);
  yield folded("Header", header);
  yield folded("Metadata", metadata);
}

/** Return the table that says for each engine whether it could run the task now. */
const placing = (engines, more) =>
  h(
    "section",
    { class: "card", "aria-label": "Engines for this task" },
    h("h2", {}, "Which engine could run it"),
    h(
      "table",
      { class: "placing" },
      h("thead", {}, h("tr", {}, ["Engine", "Now", "Why"].map((title) => h("th", { scope: "col" }, title)))),
      h(
        "tbody",
        {},
        engines.map(({ id, uuid, may, text }) =>
          h(
            "tr",
            {},
            h("td", {}, h("a", { href: `#/engines/${encodeURIComponent(uuid)}`, title: uuid }, id ?? short(uuid))),
            h("td", {}, may ? "yes" : "no"),
            h("td", {}, text),
          ),
        ),
      ),
    ),
    more ? h("p", { class: "muted" }, `and ${count(more)} more engines`) : null,
  );

const link = (id) => h("a", { href: `#/tasks/${encodeURIComponent(id)}`, title: id }, shortTask(id));

const output = (title, text, note = null) =>
  h("section", { "aria-label": title }, h("h3", {}, title), note, h("pre", { tabindex: "0" }, terminal(text)));

/** Return a link to all recorded output, and how much of it is not shown. */
const rest = (stream, leftOut, id) =>
  h(
    "p",
    { class: "muted" },
    leftOut ? `The first ${count(leftOut)} characters are not shown. ` : null,
    h(
      "a",
      { href: `api/output/${stream}/${encodeURIComponent(id)}`, download: "" },
      leftOut ? "Download all of it" : "Download",
    ),
  );

const folded = (title, value) =>
  h("details", {}, h("summary", {}, title), h("pre", { tabindex: "0" }, JSON.stringify(value ?? {}, null, 2)));
