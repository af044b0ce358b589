// The failures, grouped by exception and raising line: how many there are, when, of which tasks, and a traceback.

import { resubmitFailures } from "./actions.js";
import { button, errorLine, h, reconcile, setAttribute, setText, svg } from "./dom.js";
import { clock, count, labelLine, plural, shortTask } from "./format.js";
import { poll } from "./hub.js";
import { terminal } from "./terminal.js";

const PERIOD = 3; // seconds
const HEIGHT = 20;

export function failures({ hub, signal }) {
  const list = h("div", { class: "groups" });
  const none = h(
    "p",
    { class: "muted empty", hidden: true },
    "No request has failed since the dashboard was started. Earlier failures are in the list of ",
    h("a", { href: "#/tasks?state=failed" }, "failed tasks"),
    ".",
  );
  const [trouble, failed] = errorLine();
  const summary = h("output", { class: "muted" });

  poll(
    async () => {
      const { groups } = await hub.get("api/failures", signal);
      none.hidden = groups.length > 0;
      setText(
        summary,
        groups.length
          ? `${plural(
              groups.reduce((sum, group) => sum + group.count, 0),
              "failure",
            )} of ${plural(groups.length, "kind")}`
          : "",
      );
      reconcile(
        list,
        groups,
        ({ group }) => group,
        (group) => create(hub, group),
        update,
      );
    },
    PERIOD,
    signal,
    failed,
  );
  return h(
    "div",
    { class: "view" },
    h("div", { class: "heading" }, h("h1", {}, "Failures"), summary),
    trouble,
    list,
    none,
  );
}

function create(hub, { ename }) {
  const all = new URLSearchParams({ query: JSON.stringify({ "result_content.ename": ename }) });
  const article = h(
    "article",
    { class: "card group" },
    h(
      "h2",
      {},
      h("span", { class: "times" }),
      ` ${ename}`,
      h("span", { class: "evalue" }),
    ),
    h(
      "div",
      { class: "spark" },
      svg("svg", { viewBox: `0 0 60 ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, svg("path")),
      h("span", { class: "muted", "aria-hidden": "true" }, "per minute, last hour"),
    ),
    h("p", { class: "where" }, "raised at ", h("code")),
    h("p", { class: "muted when" }),
    h("p", { class: "muted whose" }),
    h("ul", { class: "muted examples", "aria-label": "Other texts" }),
    h(
      "p",
      { class: "controls" },
      button("Resubmit all of these…", () => resubmitFailures(hub, article.shown), { class: "admin-only" }),
      h("a", { class: "newest" }),
      h("a", { href: `#/tasks?${all}` }, `all tasks with ${ename || "this error"}`),
    ),
    h("details", {}, h("summary", {}, "Traceback of the newest failure"), h("pre", { tabindex: "0" })),
  );
  return article;
}

function update(article, group) {
  const { count: n, first, last, msg_id: id, traceback, where, evalue, examples, per_minute: minutes } = group;
  const find = (selector) => article.querySelector(selector);
  article.shown = group;
  setText(find(".times"), `${count(n)}×`);
  setText(find(".evalue"), evalue ? `: ${evalue}` : "");
  find(".where").hidden = !where;
  setText(find(".where code"), where);
  setText(
    find(".when"),
    n === 1 ? `at ${clock(last)}` : `first seen at ${clock(first)}, last seen at ${clock(last)}`,
  );
  setText(find(".whose"), whose(group));
  reconcile(
    find(".examples"),
    examples.filter((text) => text !== evalue),
    (text) => text,
    (text) => h("li", {}, `also: ${text}`),
    () => {},
  );
  const newest = find(".newest");
  setAttribute(newest, "href", `#/tasks/${encodeURIComponent(id)}`);
  setText(newest, `task ${shortTask(id)}`);
  setAttribute(find("svg path"), "d", bars(minutes));
  setAttribute(
    find("svg"),
    "aria-label",
    `Failures per minute in the last hour: ${count(minutes.at(-1))} in this minute, at most ${count(Math.max(...minutes))}`,
  );
  const details = find("details");
  details.hidden = !traceback;
  if (article.traceback !== traceback) find("pre").replaceChildren(...terminal(traceback ?? ""));
  article.traceback = traceback;
}

/** Return the labels and the engines of a group as text. */
function whose({ labels, labels_more: moreLabels, engines, engines_more: moreEngines }) {
  const named = (parts, more) => parts.join(", ") + (more ? ` and ${count(more)} more` : "");
  const texts = [];
  if (labels.length)
    texts.push(
      `label: ${named(
        labels.map((one) => `${labelLine(one.label) || "none"} (${count(one.count)})`),
        moreLabels,
      )}`,
    );
  if (engines.length)
    texts.push(
      `engine: ${named(
        engines.map((one) => `${one.id} (${count(one.count)})`),
        moreEngines,
      )}`,
    );
  return texts.join(" · ");
}

/** Return the path of a bar for each number. A bar that is not 0 can always be seen. */
function bars(numbers) {
  const most = Math.max(1, ...numbers);
  return numbers
    .map((n, x) => (n ? `M${x} ${HEIGHT}v${-Math.max(2, (HEIGHT * n) / most).toFixed(1)}h.8V${HEIGHT}z` : ""))
    .join("");
}
