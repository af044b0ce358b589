// What to do next when a view has nothing to show, with the command lines of this hub.

import { h } from "./dom.js";

/** Return how an engine of this hub is started. */
export const startEngines = (hub) =>
  step(hub, "engine", "Start an engine, on this machine or on another one that has the file:");

/** Return a sentence about the pools that bring engines. It is hidden if there are none. */
export function poolsBring(hub) {
  const element = h("p", { hidden: true });
  const fill = () => {
    const names = (hub.overview?.pools ?? []).filter(({ fixed, max }) => !fixed && max > 0).map(({ name }) => name);
    element.hidden = !names.length;
    element.replaceChildren(
      names.length === 1 ? "This pool brings engines when tasks need them: " : "These pools bring engines when tasks need them: ",
      ...names.flatMap((name, index) => [
        index ? ", " : "",
        h("a", { href: `#/pools/${encodeURIComponent(name)}` }, name),
      ]),
      ".",
    );
  };
  fill();
  if (!hub.overview) hub.addEventListener("overview", fill, { once: true });
  return element;
}

/** Return how a client of this hub submits a task. */
export const submitTasks = (hub) =>
  step(hub, "client", "Connect a client, and submit a task:", (code) =>
    ["import ipyparallel as ipp", `rc = ${code}`, "rc.load_balanced_view().apply(print, 'hello')"].join("\n"),
  );

/** An element that is filled when the hub has told its command lines, with the first overview. */
function step(hub, name, text, whole = (code) => code) {
  const code = h("code");
  const element = h("div", { class: "next-step", hidden: true }, h("p", {}, text), h("pre", { tabindex: "0" }, code));
  const fill = () => {
    const told = hub.overview?.next_steps?.[name];
    element.hidden = !told;
    if (told) code.replaceChildren(h("span", {}, whole(told)));
  };
  fill();
  if (!hub.overview) hub.addEventListener("overview", fill, { once: true });
  return element;
}
