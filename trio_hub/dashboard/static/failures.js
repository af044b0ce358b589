// The failures, grouped by exception: their number, their times, and one traceback of each group.

import { h, reconcile, setText } from "./dom.js";
import { clock, count, plural, shortTask } from "./format.js";
import { poll } from "./hub.js";

const PERIOD = 3; // seconds

export function failures({ hub, signal }) {
  const list = h("div", { class: "groups" });
  const none = h("p", { class: "muted empty", hidden: true }, "No request has failed.");
  const trouble = h("p", { class: "trouble", role: "alert", hidden: true });
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
      reconcile(list, groups, ({ ename, evalue }) => `${ename}: ${evalue}`, create, update);
    },
    PERIOD,
    signal,
    (error) => {
      trouble.hidden = !error;
      setText(trouble, error?.message ?? "");
    },
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

function create({ ename, evalue }) {
  const all = new URLSearchParams({ query: JSON.stringify({ "result_content.ename": ename }) });
  return h(
    "article",
    { class: "card group" },
    h(
      "h2",
      {},
      h("span", { class: "times" }),
      ` ${ename}`,
      h("span", { class: "evalue" }, evalue ? `: ${evalue}` : ""),
    ),
    h(
      "p",
      { class: "muted" },
      h("span", { class: "when" }),
      " ",
      h("a", { class: "newest" }),
      " · ",
      h("a", { href: `#/tasks?${all}` }, `all tasks with ${ename}`),
    ),
    h("details", {}, h("summary", {}, "Traceback of the newest failure"), h("pre", { tabindex: "0" })),
  );
}

function update(article, { count: n, first, last, msg_id: id, engine_id: engine, traceback }) {
  setText(article.querySelector(".times"), `${count(n)}×`);
  const where = engine === null || engine === undefined ? "" : ` on engine ${engine}`;
  setText(
    article.querySelector(".when"),
    n === 1 ? `at ${clock(last)}${where}:` : `from ${clock(first)} to ${clock(last)}, the newest${where}:`,
  );
  const newest = article.querySelector(".newest");
  newest.href = `#/tasks/${encodeURIComponent(id)}`;
  setText(newest, `task ${shortTask(id)}`);
  const details = article.querySelector("details");
  details.hidden = !traceback;
  setText(details.querySelector("pre"), traceback ?? "");
}
