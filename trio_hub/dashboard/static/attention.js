// The alerts for operators. The hub finds them; here they are shown, dismissed, and announced once.

import { announce, button, h, reconcile, setAttribute, setText } from "./dom.js";
import { clock, plural } from "./format.js";

const KEY = "trio-hub-dismissed";
const REMEMBERED = 100; // dismissed alerts
const AGAIN = 30; // seconds before the next announcement of events of one kind

/** The ids of the alerts that were dismissed in this browser. */
const dismissed = new Set(stored());
/** By the kind of an alert: the id that was announced last, and when, in ms. */
const announced = new Map();

function stored() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? [];
  } catch {
    return []; // the browser does not allow storage, or something else has used it
  }
}

function store() {
  try {
    localStorage.setItem(KEY, JSON.stringify([...dismissed].slice(-REMEMBERED)));
  } catch {
    // without storage, alerts stay dismissed as long as the page is open
  }
}

const kind = ({ id }) => id.slice(0, id.lastIndexOf(":"));

/** Return the alerts to be announced now, of which none has been announced. `now` is in ms. */
export function unannounced(alerts, now) {
  return alerts.filter((alert) => {
    const before = announced.get(kind(alert));
    if (before?.id === alert.id || dismissed.has(alert.id)) return false;
    if (alert.event && before && now - before.at < AGAIN * 1000) return false;
    announced.set(kind(alert), { id: alert.id, at: now });
    return alert.event || alert.until === null;
  });
}

/** Announce each new alert to screen readers, whichever view is open. */
export function announceAlerts(hub) {
  hub.addEventListener("overview", () => {
    const fresh = unannounced(hub.overview.alerts, Date.now());
    if (fresh.length) announce(`${plural(fresh.length, "alert")}: ${fresh.map(({ text }) => text).join(" ")}`);
  });
}

function when({ event, since, until }, now) {
  if (event) return since === until ? clock(until, now) : `${clock(since, now)} to ${clock(until, now)}`;
  return until === null ? `since ${clock(since, now)}` : `over since ${clock(until, now)}`;
}

/** Return the list of alerts, which is updated until the signal aborts. */
export function attention(hub, signal) {
  const list = h("ul", { class: "attention", "aria-label": "Alerts" });

  function create(alert) {
    const text = alert.href ? h("a", { href: alert.href }) : h("span");
    if (!alert.id) return h("li", { class: "good" }, text, " ", alert.again ? button("Show again", showAgain) : null);
    const dismiss = button(
      "Dismiss",
      () => {
        dismissed.add(dismiss.dataset.id);
        store();
        show();
      },
      { class: "quiet" },
    );
    return h("li", {}, h("span", {}, text, " ", h("time", { class: "muted" })), dismiss);
  }

  function update(item, alert) {
    if (!alert.id) {
      setText(item.firstChild, alert.text);
      return;
    }
    const [told, dismiss] = item.children;
    const over = !alert.event && alert.until !== null;
    setAttribute(item, "class", over ? `${alert.level} over` : alert.level);
    setText(told.firstChild, alert.text);
    setText(told.lastChild, when(alert, hub.overview.now));
    dismiss.hidden = alert.until === null;
    dismiss.dataset.id = alert.id;
    setAttribute(dismiss, "aria-label", `Dismiss: ${alert.text}`);
  }

  function showAgain() {
    for (const { id } of hub.overview.alerts) dismissed.delete(id);
    store();
    show();
  }

  function show() {
    const { alerts } = hub.overview;
    const found = alerts.filter(({ id, until }) => until === null || !dismissed.has(id));
    const hidden = alerts.length - found.length;
    if (!found.length && !hidden) found.push({ text: "No problems found.", again: false });
    if (hidden) {
      const others = found.length ? "" : "No new problems. ";
      found.push({ text: `${others}${plural(hidden, "alert is", "alerts are")} dismissed.`, again: true });
    }
    // An alert stays the same element when its numbers change.
    reconcile(list, found, (alert) => (alert.id ? kind(alert) : `none ${alert.again}`), create, update);
  }

  hub.addEventListener("overview", show, { signal });
  if (hub.overview) show();
  return list;
}
