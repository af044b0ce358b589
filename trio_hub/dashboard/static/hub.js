// The connection to the hub: requests, actions, and a stream of events, which is opened again when it breaks.

const FIRST_DELAY = 1;
const LONGEST_DELAY = 30;
const POINTS = 300;

/** An answer that reports an error. Its text is for people. */
export class HubError extends Error {
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

const REFUSED =
  "The hub does not accept this page's token. Perhaps the hub was restarted with a new token. Open the URL that the " +
  "hub has printed (“dashboard: http://…/?token=…”), or set dashboard_token to keep the token across restarts.";

/**
 * Events: "state", when `state` has changed; "overview", when there is a new `overview`; "bars", whose `detail` is the
 * hub's message about single tasks.
 *
 * States: "connecting", "live", "lost" (retries at `retryAt`, ms as Date.now), "stopped" (the hub said so), "refused".
 */
export class Hub extends EventTarget {
  state = "connecting";
  reason = "";
  retryAt = 0;
  overview = null;
  series = null;
  /** The name of the user, for the hub's log. */
  actor = null;
  #source = null;
  #timer = 0;
  #delay = FIRST_DELAY;
  #stream = false;
  #offset = null;

  get admin() {
    return Boolean(this.overview?.admin);
  }

  /** The present time of the hub's clock, in seconds. */
  get now() {
    return this.#offset === null ? Date.now() / 1000 : this.#offset + performance.now() / 1000;
  }

  /** Connect or reconnect. With `stream`, the hub also sends bars. */
  connect(stream = this.#stream) {
    this.#stream = stream;
    clearTimeout(this.#timer);
    this.#source?.close();
    const source = new EventSource(stream ? "api/events?stream=1" : "api/events");
    this.#source = source;
    source.addEventListener("overview", (event) => this.#heard(JSON.parse(event.data)));
    source.addEventListener("bars", (event) =>
      this.dispatchEvent(new CustomEvent("bars", { detail: JSON.parse(event.data) })),
    );
    source.addEventListener("stopping", () => {
      source.close();
      this.#retry("stopped", "The hub has stopped.");
    });
    source.addEventListener("error", () => {
      source.close();
      if (source === this.#source) this.#diagnose(source);
    });
  }

  /** Start or stop receiving bars. */
  streaming(wanted) {
    if (wanted !== this.#stream) this.connect(wanted);
  }

  /** Send a GET request, and return the JSON of the answer. */
  async get(path, signal) {
    return answered(await fetch(path, { signal, headers: { Accept: "application/json" } }));
  }

  /** Ask the hub for an action, and return its outcome. */
  async act(name, body) {
    const headers = { "Content-Type": "application/json", "X-Trio-Hub": "1" };
    const by = this.actor ? `?${new URLSearchParams({ actor: this.actor })}` : "";
    return answered(await fetch(`api/actions/${name}${by}`, { method: "POST", headers, body: JSON.stringify(body) }));
  }

  #heard(overview) {
    // The recent message with the shortest delay gives the best estimate of the hub's clock.
    const offset = overview.now - performance.now() / 1000;
    this.#offset =
      this.#offset === null || Math.abs(offset - this.#offset) > 2 ? offset : Math.max(offset, this.#offset - 0.01);
    if (overview.series) this.series = overview.series;
    else if (overview.point && this.series) {
      for (const [name, values] of Object.entries(this.series)) {
        values.push(overview.point[name]);
        if (values.length > POINTS) values.splice(0, values.length - POINTS);
      }
    }
    this.actor = this.actor ?? overview.actor ?? null;
    this.overview = overview;
    this.#delay = FIRST_DELAY;
    this.#become("live", "");
    this.dispatchEvent(new Event("overview"));
  }

  async #diagnose(source) {
    let state = "lost";
    let reason = "The hub does not answer.";
    try {
      const answer = await fetch("api/status");
      if (answer.status === 403) [state, reason] = ["refused", REFUSED];
      else reason = answer.ok ? "The connection to the hub broke." : `The hub answers with error ${answer.status}.`;
    } catch {
      // the hub does not answer
    }
    if (source === this.#source) this.#retry(this.state === "stopped" && state === "lost" ? "stopped" : state, reason);
  }

  #retry(state, reason) {
    if (state === "stopped") reason = "The hub has stopped.";
    this.retryAt = Date.now() + this.#delay * 1000;
    this.#timer = setTimeout(() => this.connect(), this.#delay * 1000);
    this.#delay = Math.min(this.#delay * 2, LONGEST_DELAY);
    this.#become(state, reason);
  }

  #become(state, reason) {
    if (state === this.state && reason === this.reason && state === "live") return;
    [this.state, this.reason] = [state, reason];
    this.dispatchEvent(new Event("state"));
  }
}

async function answered(response) {
  let content = null;
  try {
    content = await response.json();
  } catch {
    // an error without JSON
  }
  if (response.ok && content !== null) return content;
  if (content?.error) throw new HubError(content.error, response.status);
  throw new HubError(
    response.status === 403 ? REFUSED : `The hub answers with error ${response.status}.`,
    response.status,
  );
}

/**
 * Call `ask` repeatedly, `period` seconds after each answer, until the signal aborts. Pauses while the page is hidden.
 *
 * `failed(error)` is called with each error, and with null after each success.
 */
export async function poll(ask, period, signal, failed) {
  while (!signal.aborted) {
    if (!document.hidden) {
      try {
        await ask();
        if (!signal.aborted) failed(null);
      } catch (error) {
        if (signal.aborted) return;
        failed(error);
      }
    }
    await new Promise((wake) => {
      const timer = setTimeout(wake, period * 1000);
      signal.addEventListener("abort", () => (clearTimeout(timer), wake()), { once: true });
    });
  }
}
