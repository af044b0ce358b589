// The alerts for operators, computed from one overview.

import { bytes, count, plural, rate, seconds } from "./format.js";

const LATE = 10; // seconds that the database may be behind
const LAGGING = 0.25; // seconds that the event loop may be late
const NAMED = 3; // engines that one line names
const DESCRIPTORS = 0.8; // of those that the process may have

/** Return the alerts as `{level: "bad"|"warn", text, href}`, the worst first. */
export function attention(overview) {
  const { statistics: now, process, rates, latencies } = overview;
  const found = [];
  const say = (level, text, href = null) => found.push({ level, text, href });
  const waiting = now.tasks_queued + now.tasks_waiting;
  const { database } = now;

  if (waiting > 0 && now.engines === 0)
    say("bad", `${plural(waiting, "task waits", "tasks wait")}, but no engine is alive.`, "#/engines");
  const missing = now.local_engines_missing ?? [];
  if (missing.length > 0)
    say(
      "warn",
      `${count(missing.length)} of ${plural(now.local_engines, "local engine")} cannot be used: ` +
        `${missing.slice(0, NAMED).join("; ")}${missing.length > NAMED ? "; and others" : ""}.`,
      "#/engines",
    );
  if (database.last_error) say("bad", `The database cannot be written: ${database.last_error}`);
  if (database.not_persisted > 0)
    say("bad", `${plural(database.not_persisted, "record was", "records were")} lost: writing failed.`);
  const errors = Object.values(now.internal_errors ?? {}).reduce((sum, number) => sum + number, 0);
  if (errors > 0)
    say("bad", `${plural(errors, "unexpected error", "unexpected errors")} in the hub: see the log for the traceback.`);
  if (now.lost > 0)
    say(
      "warn",
      `${plural(now.lost, "engine is", "engines are")} lost; late results are still accepted.`,
      "#/engines?text=lost",
    );
  if (database.lag > LATE)
    say(
      "warn",
      `The database is ${seconds(database.lag)} behind: ` +
        `${plural(database.pending, "record waits", "records wait")} (${bytes(database.pending_bytes)}).`,
    );
  if (now.subscribers_behind > 0)
    say(
      "warn",
      `${plural(now.subscribers_behind, "client connection does", "client connections do")} not read output or ` +
        `notifications: ${bytes(now.subscribers_waiting)} wait, and the oldest messages are dropped. ` +
        "The addresses are in the hub's log.",
    );
  if (rates.failed > 0) say("warn", `Tasks are failing: ${rate(rates.failed)}.`, "#/failures");
  if (latencies.loop?.p99 > LAGGING)
    say("warn", `The hub's event loop was ${seconds(latencies.loop.p99)} late (p99 of the last minute).`);
  if (process.fds_limit && process.fds > DESCRIPTORS * process.fds_limit)
    say(
      "warn",
      `${count(process.fds)} of ${count(process.fds_limit)} file descriptors are in use: ` +
        "raise the limit (ulimit -n) before you start more engines.",
    );
  return found;
}
