// Formatting of numbers and times for people.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const two = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const short_time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export const NOTHING = "–";

export const count = (n) => (n === null || n === undefined ? NOTHING : whole.format(n));

/** "1 task", "3,000 tasks". */
export const plural = (n, noun, nouns = `${noun}s`) => `${count(n)} ${n === 1 ? noun : nouns}`;

export const number = (x) =>
  x === null || x === undefined ? NOTHING : Math.abs(x) >= 1000 ? whole.format(x) : three.format(x);

/** Two or three digits, since more would change with every look: "0.05", "3.2", "47", "1,230". */
export const calm = (x) =>
  Math.abs(x) >= 100 ? three.format(x) : Math.abs(x) >= 10 ? whole.format(x) : two.format(Math.abs(x) < 0.005 ? 0 : x);

export const rate = (x) => (x === null || x === undefined ? NOTHING : `${calm(x)}/s`);

export const percent = (x) =>
  x === null || x === undefined ? NOTHING : x > 0 && x < 0.001 ? "< 0.1 %" : `${calm(x * 100)} %`;

export function bytes(n) {
  if (n === null || n === undefined) return NOTHING;
  let unit = 0;
  while (Math.abs(n) >= 1000 && unit < 4) {
    n /= 1000;
    unit++;
  }
  return `${calm(n)} ${["B", "kB", "MB", "GB", "TB"][unit]}`;
}

/** A duration in seconds: "35 µs", "1.2 ms", "3.4 s", "5 min 3 s", "2 h 10 min", "3 d 4 h". */
export function seconds(s) {
  if (s === null || s === undefined) return NOTHING;
  if (s < 0) return `−${seconds(-s)}`;
  if (s === 0) return "0 s";
  s = Number(s.toPrecision(s < 60 ? 3 : 15)); // so that 999.7 ms are 1 s, and not 1,000 ms
  if (s < 0.001) return `${three.format(s * 1e6)} µs`;
  if (s < 1) return `${three.format(s * 1000)} ms`;
  if (s < 60) return `${three.format(s)} s`;
  const n = Math.round(s);
  if (n < 3600) return `${Math.floor(n / 60)} min ${n % 60} s`;
  if (n < 86400) return `${Math.floor(n / 3600)} h ${Math.floor((n % 3600) / 60)} min`;
  return `${Math.floor(n / 86400)} d ${Math.floor((n % 86400) / 3600)} h`;
}

/** As `seconds`, with two digits, for percentiles, which are read off histograms. */
export const about = (s) => seconds(s === null || s === undefined || s >= 100 ? s : Number(s.toPrecision(2)));

/** As `seconds`, without fractions, for values that are updated every second or two. */
export const age = (s) =>
  s === null || s === undefined ? NOTHING : s < 1 ? "now" : seconds(s < 60 ? Math.round(s) : s);

/** A Unix time in the browser's time zone; with the day, if it is not today. */
export function clock(t, now = Date.now() / 1000) {
  if (t === null || t === undefined) return NOTHING;
  const date = new Date(t * 1000);
  const today = new Date(now * 1000).toDateString() === date.toDateString();
  return today ? time.format(date) : `${day.format(date)} ${time.format(date)}`;
}

/** Hours and minutes in the browser's time zone. */
export const minute = (t) => short_time.format(new Date(t * 1000));

/** As `clock`, with milliseconds. */
export const exact = (t, now) =>
  t === null || t === undefined
    ? NOTHING
    : `${clock(t, now)}.${String(new Date(t * 1000).getMilliseconds()).padStart(3, "0")}`;

/** How long something has lasted that is not over, in whole seconds. */
export const elapsed = (s) =>
  s === null || s === undefined ? NOTHING : s < 1 ? "< 1 s" : seconds(s < 60 ? Math.floor(s) : s);

/** The beginning of a long id, which is enough to distinguish ids. */
export const short = (id) => (id ? String(id).slice(0, 8) : NOTHING);

/** A shortened msg_id. The msg_ids of one client differ only in the number at their end. */
export function shortTask(id) {
  const number = /^.{8}.*(_\d+)$/.exec(id);
  return number ? `${short(id)}…${number[1]}` : short(id);
}

/** Return a label, which may be any JSON value, as text. */
export const label = (value) =>
  value === null || value === undefined || value === ""
    ? ""
    : typeof value === "string"
      ? value
      : JSON.stringify(value);

/** Return a label on one line. A dict is shown as "run: 7, night: 3". */
export function labelLine(value) {
  let text = label(value);
  if (text.startsWith("{")) {
    try {
      text = Object.entries(JSON.parse(text))
        .map(([name, part]) => `${name}: ${typeof part === "string" ? part : JSON.stringify(part)}`)
        .join(", ");
    } catch {
      // a text that begins like a dict, or a dict that was cut off
    }
  }
  return text.replace(/\s+/g, " ").trim();
}

/** Return rules on one line, such as "priority=5 needs={"gpu":1}". */
export const ruleLine = (rules) =>
  Object.entries(rules ?? {})
    .map(([name, value]) => `${name}=${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join(" ");

/** Return the tags and amounts of an engine as commands write them: "gpu=1, memory=32G". */
export const offered = (offers) =>
  Object.entries(offers ?? {})
    .map(([name, value]) => `${name}=${typeof value === "number" ? amount(value) : value}`)
    .join(", ");

/** Return the fragment of the page of a block's pool; null if the name is not one of a block of ours. */
export const poolOf = (block) => {
  const name = /^(.+)-[0-9a-f]{8}$/.exec(block ?? "")?.[1];
  return name ? `#/pools/${encodeURIComponent(name)}` : null;
};

function amount(n) {
  for (const [unit, size] of Object.entries({ T: 2 ** 40, G: 2 ** 30, M: 2 ** 20, K: 2 ** 10 }))
    if (n >= size && n % size === 0) return `${n / size}${unit}`;
  return String(n);
}

/** Return the drain of an engine as a text: "until 14:05:00, then shut down, by ada". */
export const drainLine = (drain, now) =>
  drain
    ? [drain.deadline && `until ${clock(drain.deadline, now)}`, drain.then && "then shut down", `by ${drain.by}`]
        .filter(Boolean)
        .join(", ")
    : "";

/** A part of a core, or of all cores: "97 %". */
export const share = (x) => (x === null || x === undefined ? NOTHING : `${Math.round(100 * x)} %`);

/** How much of an engine's machine is in use: "62 % of 8 cores, 12.1 of 16.4 GB". */
export function machine(usage) {
  if (!usage?.host_memory_total) return NOTHING;
  const { host_cpu: cpu, host_cores: cores, host_memory: used, host_memory_total: total } = usage;
  const gigabytes = (n) => (n / 1e9).toFixed(1);
  return `${share(cpu)} of ${count(cores)} cores, ${gigabytes(used)} of ${gigabytes(total)} GB`;
}
