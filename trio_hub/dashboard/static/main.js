// The frame of the pages: the choice of the view, the state of the connection, and the footer.

import { announceAlerts } from "./attention.js";
import { announce, button, h, setText } from "./dom.js";
import { age, clock } from "./format.js";
import { Hub } from "./hub.js";
import { clients } from "./clients.js";
import { engine } from "./engine.js";
import { engines } from "./engines.js";
import { failures } from "./failures.js";
import { overview } from "./overview.js";
import { pool } from "./pools.js";
import { stream } from "./stream.js";
import { task } from "./task.js";
import { tasks } from "./tasks.js";

const VIEWS = {
  overview: [overview],
  engines: [engines, engine],
  stream: [stream],
  tasks: [tasks, task],
  failures: [failures],
  clients: [clients],
  pools: [overview, pool],
};

const hub = new Hub();
const main = document.getElementById("main");
let leaving = new AbortController();

/** Return the view, the id and the parameters in the URL's fragment, such as "#/tasks/ID?state=failed". */
function place() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  let id = rest.join("/");
  try {
    id = decodeURIComponent(id);
  } catch {
    // a percent sign that is not an escape
  }
  return { name: name in VIEWS ? name : "overview", id, parameters: new URLSearchParams(query) };
}

function show() {
  const { name, id, parameters } = place();
  leaving.abort();
  leaving = new AbortController();
  const [list, one] = VIEWS[name];
  hub.streaming(name === "stream");
  const view = (id && one ? one : list)({ hub, id, parameters, signal: leaving.signal });
  main.replaceChildren(view);
  const heading = view.querySelector("h1");
  document.title = `${heading.textContent} · trio-hub`;
  for (const link of document.querySelectorAll("#views a")) {
    if (link.getAttribute("href") === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  return heading;
}

/** Show another view, and move the focus to its heading, so that screen readers announce it. */
function move() {
  const heading = show();
  scrollTo(0, 0);
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

const connection = document.getElementById("connection");
const banner = document.getElementById("banner");
const reason = h("span");
const countdown = h("span", { "aria-hidden": "true" });
const enter = button("Enter the token", () => location.reload()); // which shows the hub's page with a field for it
banner.append(
  reason,
  " ",
  countdown,
  " ",
  button("Try now", () => hub.connect()),
  enter,
);
let ticking = 0;

function tell() {
  setText(connection, hub.state === "live" ? "live" : hub.state);
  connection.dataset.state = hub.state;
  clearInterval(ticking);
  const silent = hub.state === "live" || hub.state === "connecting";
  banner.hidden = silent;
  enter.hidden = hub.state !== "refused";
  document.body.classList.toggle("stale", !silent);
  if (silent) return;
  setText(reason, `${hub.reason}${hub.overview ? ` This page shows the state at ${clock(hub.overview.now)}.` : ""}`);
  const tick = () =>
    setText(countdown, `Next try in ${Math.max(0, Math.ceil((hub.retryAt - Date.now()) / 1000))} s.`);
  tick();
  ticking = setInterval(tick, 500);
}

function frame() {
  const { cluster_id: cluster, version, address, started, now, admin, statistics } = hub.overview;
  document.body.classList.toggle("admin", admin);
  setText(document.getElementById("hub-name"), cluster ? `${cluster} · ${version}` : version);
  setText(document.getElementById("hub-address"), `${address} (${statistics.connections === "open" ? "not encrypted" : statistics.connections})`);
  setText(document.getElementById("hub-uptime"), `up ${age(now - started)}, since ${clock(started, now)}`);
  setText(
    document.getElementById("hub-admin"),
    admin
      ? `actions allowed${hub.actor ? ` (as ${hub.actor})` : ""}`
      : "read-only (start the hub with --dashboard-admin true to allow actions)",
  );
}

// The cookie has the token now, so it is removed from the address, where others could see or copy it.
const address = new URL(location.href);
if (address.searchParams.has("token")) {
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
}
hub.actor = address.searchParams.get("actor");

let before = null;
hub.addEventListener("state", () => {
  tell();
  if (before !== null && before !== "live" && hub.state === "live") announce("Connected to the hub again.");
  if (hub.state !== "connecting") before = hub.state;
});
hub.addEventListener("overview", frame);
announceAlerts(hub);
addEventListener("hashchange", move);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment names the view
  main.focus();
});
show();
if (hub.state === "connecting") hub.connect(place().name === "stream");
