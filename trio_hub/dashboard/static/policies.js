// The policies of the hub: which tasks each matches, and the rules that it gives to them.

import { errorLine, h } from "./dom.js";
import { count, ruleLine } from "./format.js";
import { poll } from "./hub.js";

const PERIOD = 10; // seconds
const CONDITIONS = ["label", "function", "client", "user"];

/** Return the list of policies, folded. It is asked for only while it is unfolded. */
export function policies(hub, signal) {
  const content = h("div", {}, "…");
  const [trouble, failed] = errorLine();
  const details = h("details", {}, h("summary", {}, "Policies"), trouble, content);
  const load = async () => {
    if (!details.open) return;
    const { policies: found } = await hub.get("api/policies", signal);
    content.replaceChildren(found.length ? table(found) : h("p", {}, "The hub has no policies."));
  };
  details.addEventListener("toggle", () => load().catch((error) => signal.aborted || failed(error)));
  poll(load, PERIOD, signal, failed);
  return details;
}

const table = (found) =>
  h(
    "div",
    { class: "scroll-x" },
    h(
      "table",
      {},
      h("caption", {}, `${count(found.length)} of the hub, in the order in which they apply`),
      h(
        "thead",
        {},
        h("tr", {}, ["Policy", "Matches", "Rules", "Source"].map((title) => h("th", { scope: "col" }, title))),
      ),
      h(
        "tbody",
        {},
        found.map(({ name, source, ...rest }) => {
          const conditions = Object.entries(rest).filter(([key]) => CONDITIONS.includes(key));
          const rules = Object.entries(rest).filter(([key]) => !CONDITIONS.includes(key));
          return h(
            "tr",
            {},
            h("th", { scope: "row" }, name),
            h("td", {}, ruleLine(Object.fromEntries(conditions)) || "all tasks"),
            h("td", {}, ruleLine(Object.fromEntries(rules))),
            h("td", {}, source),
          );
        }),
      ),
    ),
  );
