// The clients: what each has submitted, what is unfinished of it, and results that wait for clients that have left.

import { dropOwed } from "./actions.js";
import { button, errorLine, h, setText } from "./dom.js";
import { NOTHING, age, count, plural, short } from "./format.js";
import { poll } from "./hub.js";
import { submitTasks } from "./nextsteps.js";
import { Table, fillLink, fillState } from "./table.js";

const PERIOD = 3; // seconds

export function clients({ hub, signal }) {
  let now = hub.now;
  const unfinished = (row) => row.queued + row.waiting + row.paused + row.running + row.direct;
  const number = (id, title) => ({ id, title, number: true, sort: (row) => row[id], text: (row) => count(row[id]) });
  const table = new Table({
    caption: "Clients",
    key: (row) => row.client,
    empty: h("div", {}, h("p", {}, "No client has submitted a request since the dashboard was started."), submitTasks(hub)),
    columns: [
      {
        id: "client",
        title: "Client",
        heading: true,
        fill: (cell, row) =>
          fillLink(cell, `#/tasks?${new URLSearchParams({ text: row.client })}`, short(row.client), row.client),
      },
      {
        id: "state",
        title: "State",
        sort: (row) => -row.owed,
        fill: (cell, row) => fillState(cell, row.owed ? "away" : unfinished(row) ? "busy" : "idle"),
      },
      number("queued", "Queued"),
      number("waiting", "Waiting"),
      number("paused", "Paused"),
      number("running", "Running"),
      number("direct", "Direct"),
      number("owed", "Results owed"),
      number("submitted", "Submitted"),
      {
        id: "last",
        title: "Last request",
        number: true,
        sort: (row) => row.last,
        text: (row) => (row.last === null ? NOTHING : now - row.last < 1 ? "now" : `${age(now - row.last)} ago`),
      },
      { id: "drop", title: h("span", { class: "hidden-visually" }, "Action"), admin: true, fill: fillDrop },
    ],
  });

  function fillDrop(cell, row) {
    const one = cell.firstElementChild ?? cell.appendChild(button("Drop results…", () => drop(cell.row)));
    cell.row = row;
    one.hidden = row.owed === 0;
  }

  const drop = async (row) => {
    if ((await dropOwed(hub, row)) !== null) load().catch(failed);
  };
  const summary = h("output", { class: "muted" });
  const [trouble, failed] = errorLine();
  const load = async () => {
    const answer = await hub.get("api/clients", signal);
    ({ now } = answer);
    const away = answer.clients.filter((row) => row.owed);
    const owed = away.reduce((sum, row) => sum + row.owed, 0);
    setText(
      summary,
      plural(answer.clients.length + answer.more, "client") +
        (owed ? `; ${plural(owed, "result waits", "results wait")} for ${plural(away.length, "client")} away` : ""),
    );
    table.update(answer.clients);
  };
  poll(load, PERIOD, signal, failed);

  return h(
    "div",
    { class: "view" },
    h("div", { class: "heading" }, h("h1", {}, "Clients"), summary),
    trouble,
    table.element,
  );
}
