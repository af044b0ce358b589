// The task stream: its controls, keys and pointer, and its summary in words.

import { Bars, current } from "./bars.js";
import { announce, button, errorLine, h, setAttribute, setText } from "./dom.js";
import { clock, count, exact, labelLine, plural, seconds, shortTask } from "./format.js";
import { Legend } from "./legend.js";
import { Colouring, Palette } from "./palette.js";
import { submitTasks } from "./nextsteps.js";
import { inSight } from "./sight.js";
import { Timeline } from "./timeline.js";

const FRAME = 100; // the least ms between two drawings while the stream is live
const CALM_FRAME = 1000; // the same for users who prefer reduced motion
const SUMMARY = 2000; // ms between two summaries while nobody moves the visible part
const SOON = 200; // the same while somebody moves it
const EXACT = 120; // seconds in sight below which times are shown with milliseconds
const MARGIN = 0.025; // the part of the width that is free to the right of now
const ROW_HEIGHTS = [3, 6, 12, 18, 28, 40, 60, 90];
const SMALLEST = 2; // the index of the smallest row height that is chosen automatically
const ROOM = 460; // px that rows may take before smaller rows are chosen
const STEP = 0.15; // the part of the width that an arrow key moves

export function stream({ hub, signal }) {
  let bars = new Bars();
  let live = true;
  let chosen = false; // whether the user has chosen the height of rows
  let dirty = true;
  let drawn = 0;
  let [summarised, summarisedVersion, summarisedView] = [0, -1, ""];
  let pending = []; // messages that came during the first load
  let began = hub.overview?.started ?? null;

  const canvas = h("canvas", {
    tabindex: "0",
    role: "application",
    "aria-roledescription": "timeline",
    "aria-label": "Task stream",
    "aria-describedby": "stream-keys stream-summary",
  });
  const timeline = new Timeline(canvas, bars);
  timeline.palette = new Palette();
  timeline.from = hub.now - timeline.span;
  const legend = new Legend(timeline, () => (dirty = true));

  const frameElement = h("div", { class: "timeline", id: "stream" });
  const tip = h("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  const summary = h("p", { id: "stream-summary", class: "muted" });
  const waiting = h("strong", {}, "–");
  const running = h("strong", {}, "–");
  const queued = h("span");
  const [trouble, failed] = errorLine();
  const liveButton = button("Live", () => follow(!live), { "aria-pressed": "true", class: "toggle" });
  const words = inSight();

  function follow(wanted) {
    live = wanted;
    setAttribute(liveButton, "aria-pressed", String(live));
    setText(liveButton, live ? "Live" : "Paused");
    dirty = true;
  }

  function zoom(factor, x) {
    timeline.zoom(factor, x);
    dirty = true;
  }

  function pan(dx, dy) {
    if (dx) follow(false);
    timeline.pan(dx, dy);
    dirty = true;
  }

  function fit() {
    const extent = bars.extent;
    if (!extent) return;
    follow(false);
    const span = Math.max(0.05, extent[1] - extent[0]);
    timeline.from = extent[0] - span * MARGIN;
    timeline.span = span * (1 + 2 * MARGIN);
    dirty = true;
  }

  function rows(direction) {
    const at = ROW_HEIGHTS.indexOf(timeline.rowHeight) + direction;
    timeline.rowHeight = ROW_HEIGHTS[Math.max(0, Math.min(ROW_HEIGHTS.length - 1, at))];
    chosen = true;
    fitRows();
    timeline.clamp();
    dirty = true;
  }

  const describe = (bar) => {
    const engine = bars.rows.get(bar.row)?.id ?? "?";
    const name = labelLine(bars.labels.get(bar.label));
    const title = name || shortTask(bar.id);
    const runs = bar.end !== null || current(bars.rows.get(bar.row)) === bar;
    if (!runs) return `${title}: queued at engine ${engine}, since ${clock(bar.start, hub.now)}`;
    const took = bar.end === null ? `for ${seconds(hub.now - bar.from)}` : `in ${seconds(bar.end - bar.from)}`;
    const waited = bar.from > bar.start ? `, after ${seconds(bar.from - bar.start)} in its queue` : "";
    return `${title}: ${bar.status} on engine ${engine} ${took}, from ${clock(bar.from, hub.now)}${waited}`;
  };

  function select(bar) {
    timeline.selected = bar;
    dirty = true;
    if (!bar) return;
    follow(false);
    if (bar.from > timeline.to || (bar.end ?? bar.from) < timeline.from)
      timeline.from = bar.from - timeline.span / 2;
    announce(`${describe(bar)}. Enter opens it.`);
  }

  const open = (bar) => (location.hash = `#/tasks/${encodeURIComponent(bar.id)}`);

  const keys = {
    ArrowLeft: () => pan(-STEP * timeline.width, 0),
    ArrowRight: () => pan(STEP * timeline.width, 0),
    ArrowUp: () => pan(0, -3 * timeline.rowHeight),
    ArrowDown: () => pan(0, 3 * timeline.rowHeight),
    PageUp: () => pan(0, -timeline.height / 2),
    PageDown: () => pan(0, timeline.height / 2),
    "+": () => zoom(0.5),
    "=": () => zoom(0.5),
    "-": () => zoom(2),
    0: fit,
    " ": () => follow(!live),
    ",": () => select(timeline.neighbour(-1)),
    ".": () => select(timeline.neighbour(1)),
    Enter: () => timeline.selected && open(timeline.selected),
    Escape: () => select(null),
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });

  let grabbed = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    grabbed = { x: event.clientX, y: event.clientY, moved: false };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (grabbed) {
      const [dx, dy] = [grabbed.x - event.clientX, grabbed.y - event.clientY];
      if (!grabbed.moved && Math.hypot(dx, dy) < 4) return;
      grabbed = { x: event.clientX, y: event.clientY, moved: true };
      hover(null);
      pan(dx, dy);
    } else hover(event);
  });
  canvas.addEventListener("pointerup", (event) => {
    const bar = timeline.at(event.offsetX, event.offsetY);
    if (grabbed && !grabbed.moved && bar) open(bar);
    grabbed = null;
  });
  canvas.addEventListener("pointercancel", () => (grabbed = null));
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan(event.deltaX || event.deltaY, 0);
      else zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 300))), event.offsetX);
    },
    { passive: false },
  );

  function hover(event) {
    const bar = event && timeline.at(event.offsetX, event.offsetY);
    if (bar !== timeline.hovered) dirty = true;
    timeline.hovered = bar;
    tip.hidden = !bar;
    canvas.style.cursor = bar ? "pointer" : "grab";
    if (!bar) return;
    setText(tip, describe(bar));
    const left =
      event.offsetX + 14 + tip.offsetWidth > timeline.width ? event.offsetX - tip.offsetWidth - 8 : event.offsetX + 14;
    const top = Math.min(event.offsetY + 16, timeline.height - tip.offsetHeight);
    tip.style.transform = `translate(${Math.max(0, left)}px, ${top}px)`;
  }

  /** Make the canvas as high as its rows. Until the user chooses, the rows are as high as possible so that all fit. */
  let height = "";
  function fitRows() {
    if (!chosen) timeline.rowHeight = ROW_HEIGHTS.findLast((px) => bars.rows.size * px < ROOM) ?? ROW_HEIGHTS[SMALLEST];
    const wanted = `${timeline.content + 2}px`; // including the border
    if (wanted !== height) frameElement.style.height = height = wanted;
  }

  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let version = -1;
  function frame(at) {
    if (signal.aborted) return;
    requestAnimationFrame(frame);
    const pixel = 1000 / timeline.scale; // ms in which a live stream moves by one pixel
    if (bars.version !== version) fitRows();
    empty.hidden = pending !== null || bars.rows.size > 0;
    const due = at - drawn >= Math.max(calm.matches ? CALM_FRAME : FRAME, Math.min(pixel, 1000));
    const moving = due && (live || bars.version !== version);
    if (timeline.resize() || dirty || moving) {
      timeline.series = hub.series;
      if (live) timeline.from = hub.now - timeline.span * (1 - MARGIN);
      timeline.draw(hub.now);
      dirty = false;
      drawn = at;
      version = bars.version;
      if (at - summarised < 2 * SUMMARY) return; // the summary gets a frame of its own: both take a while for many bars
    }
    const moved = view() !== summarisedView;
    const changed = moved || live || summarisedVersion !== bars.version || !summarised;
    if (changed && at - summarised > (moved ? SOON : SUMMARY)) {
      [summarised, summarisedVersion] = [at, bars.version];
      tell();
    }
  }

  /** What part is visible, as far as somebody has chosen it: a live stream moves by itself. */
  const view = () =>
    [live || timeline.from, timeline.span, timeline.top, timeline.rowHeight, timeline.height, bars.labels.size].join();

  function tell() {
    setText(waiting, count(bars.waiting));
    const open = bars.open;
    setText(running, count(open.running));
    setText(queued, open.queued ? ` (and ${count(open.queued)} queued at engines)` : "");
    const { counts, tasks, rows } = timeline.inSight();
    const time = timeline.span < EXACT ? exact : clock;
    setText(
      summary,
      `In sight: ${plural(tasks, "task")} of ${plural(counts.size, "label")} on ${plural(rows, "engine")}, ` +
        `${time(timeline.from, hub.now)} to ${time(Math.min(timeline.to, hub.now), hub.now)}. Loaded: ` +
        `${plural(bars.rows.size, "engine")}, ${plural(bars.count, "finished task")}.` +
        (bars.lost
          ? ` ${plural(bars.lost, "more task is", "more tasks are")} not loaded: too old, or too many at once.`
          : ""),
    );
    if (legend.update(counts, bars)) dirty = true;
    summarisedView = view();
    words.update(timeline, hub.now);
  }

  async function load() {
    pending = [];
    const queue = pending;
    try {
      const first = await hub.get("api/stream?since=0", signal);
      if (queue !== pending) return; // it was loaded again meanwhile
      bars.add(first);
      for (const message of queue) bars.add(message);
      pending = null;
      failed(null);
      dirty = true;
      summarised = 0; // the summary is made when the rows have their places
    } catch (error) {
      if (signal.aborted) return;
      pending = null; // later messages are shown even if loading failed
      failed(error);
    }
  }

  /** Load everything again, because the earlier bars are another hub's, or some are missing. */
  function restart() {
    bars = new Bars();
    timeline.bars = bars;
    timeline.selected = timeline.hovered = timeline.highlighted = null;
    timeline.colouring = new Colouring();
    load();
  }

  const empty = h("div", { class: "muted empty" }, h("p", {}, "No engine has had a task yet."), submitTasks(hub));
  frameElement.append(canvas, tip);

  hub.addEventListener("bars", ({ detail }) => (pending ? pending.push(detail) : bars.add(detail)), { signal });
  hub.addEventListener(
    "overview",
    () => {
      if (began !== null && hub.overview.started !== began) restart();
      began = hub.overview.started;
    },
    { signal },
  );
  let connected = true;
  hub.addEventListener(
    "state",
    () => {
      if (hub.state === "live" && !connected) restart();
      connected = hub.state === "live";
    },
    { signal },
  );
  document.addEventListener(
    "theme",
    () => {
      timeline.palette = new Palette();
      dirty = true;
    },
    { signal },
  );
  // The stream is connected before the load, so no bars are missing between them.
  hub.addEventListener("overview", load, { signal, once: true });
  requestAnimationFrame(frame);

  return h(
    "div",
    { class: "view fill" },
    h(
      "div",
      { class: "heading" },
      h("h1", {}, "Task stream"),
      h("p", { class: "counts" }, waiting, " queued, waiting or paused · ", running, " running", queued),
    ),
    h(
      "div",
      { class: "controls", role: "toolbar", "aria-label": "Task stream", "aria-controls": "stream" },
      liveButton,
      button("−", () => zoom(2), { "aria-label": "Zoom out", title: "Zoom out (−)" }),
      button("+", () => zoom(0.5), { "aria-label": "Zoom in", title: "Zoom in (+)" }),
      button("Fit", fit, { title: "Show all loaded tasks (0)" }),
      button("Smaller rows", () => rows(-1)),
      button("Larger rows", () => rows(1)),
      h("a", { class: "button", href: "api/trace", download: "trio-hub-trace.json" }, "Export trace"),
    ),
    trouble,
    h(
      "div",
      { class: "legends" },
      legend.element,
      h(
        "ul",
        { class: "legend" },
        h("li", {}, h("i", { class: "key failure" }), "failed"),
        h("li", {}, h("i", { class: "key aborted" }), "aborted"),
        h("li", {}, h("i", { class: "key direct" }), "direct or broadcast (half height)"),
      ),
    ),
    frameElement,
    empty,
    summary,
    h(
      "p",
      { id: "stream-keys", class: "muted keys" },
      "Zoom with the wheel, + and −; move by dragging or with the arrow keys; pause with space; " +
        "go from task to task with , and . and open a task with Enter. A label stands out while its button is pressed.",
    ),
    words.element,
  );
}
