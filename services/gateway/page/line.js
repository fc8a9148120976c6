// The line to a gateway: one WebSocket that is made again after every break, until the key is refused or we sign out.
//
// States: out, connecting, open, waiting (for the next try). Each change is an event `state`; each object from the
// gateway is an event `object`; a refused key is an event `refused`.

const PROTOCOL = "millrace.v1";
const FIRST_MS = 250;
const LONGEST_MS = 5_000;
const CONNECT_MS = 8_000;
const ANSWER_MS = 6_000;

export class Line extends EventTarget {
  #key = "";
  #socket = null;
  #tries = 0;
  #timer = 0;
  #watch = 0;
  #heardAt = 0;
  #heartbeatMs = 20_000;
  #reconnectMs = 0;
  state = "out";
  detail = "";

  open(key) {
    this.close();
    this.#key = key;
    this.#connect();
  }

  close() {
    this.#key = "";
    clearTimeout(this.#timer);
    this.#drop();
    this.#become("out", "signed out");
  }

  /** Sends an object; false if the line is not open: everything is sent again once it is. */
  send(object) {
    if (this.state !== "open") return false;
    this.#socket.send(JSON.stringify(object));
    return true;
  }

  /** Try now instead of later: the network came back, or somebody looks at the page again. */
  hurry() {
    if (this.state === "waiting") this.#connect();
    else if (this.state === "open") this.send({ t: "ping" });
  }

  async #connect() {
    const key = this.#key;
    clearTimeout(this.#timer);
    this.#become("connecting", "connecting…");
    try {
      const ticket = await this.#ticket(key);
      if (key !== this.#key || this.#socket) return;
      this.#listen(new WebSocket(`${location.origin.replace(/^http/, "ws")}/v1/ws?ticket=${ticket}`, PROTOCOL));
    } catch (problem) {
      if (key !== this.#key) return;
      if (problem.status === 401) this.#refuse(problem);
      else this.#retry(problem.retryAfterMs ?? 0);
    }
  }

  async #ticket(key) {
    const answer = await ask("POST", "/v1/tickets", key, AbortSignal.timeout(CONNECT_MS));
    return encodeURIComponent(answer.ticket);
  }

  #listen(socket) {
    this.#socket = socket;
    this.#heardAt = performance.now();
    this.#watch = setInterval(() => this.#look(), 1_000);
    socket.onmessage = (message) => {
      if (socket !== this.#socket) return;
      this.#heardAt = performance.now();
      this.#hear(JSON.parse(message.data));
    };
    socket.onclose = (closed) => {
      if (socket !== this.#socket) return;
      this.#drop();
      if (closed.code === 4401) this.#refuse({ code: "unauthenticated", message: closed.reason });
      else this.#retry(this.#reconnectMs);
      this.#reconnectMs = 0;
    };
  }

  #hear(object) {
    if (object.t === "hello") {
      this.#heartbeatMs = object.heartbeat_s * 1000;
      this.#tries = 0;
      this.#become("open", `connected to ${object.gateway}`);
    } else if (object.t === "going_away") {
      this.#reconnectMs = object.reconnect_in_s * 1000;
    } else if (object.t !== "pong") {
      this.dispatchEvent(new CustomEvent("object", { detail: object }));
    }
  }

  /** A page does not see the gateway's pings, so it asks for itself when nothing came for a heartbeat. */
  #look() {
    const silence = performance.now() - this.#heardAt;
    const patience = this.state === "open" ? this.#heartbeatMs : CONNECT_MS;
    if (silence > patience + ANSWER_MS) {
      this.#drop();
      this.#retry(0);
    } else if (silence > patience) {
      this.send({ t: "ping" });
    }
  }

  #drop() {
    clearInterval(this.#watch);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #refuse(problem) {
    this.close();
    this.dispatchEvent(new CustomEvent("refused", { detail: problem }));
  }

  #retry(asked) {
    const ceiling = Math.min(FIRST_MS * 2 ** this.#tries++, LONGEST_MS);
    const delay = asked + ceiling * (1 - Math.random());
    this.#timer = setTimeout(() => this.#connect(), delay);
    this.#become("waiting", "reconnecting…");
  }

  #become(state, detail) {
    this.state = state;
    this.detail = detail;
    this.dispatchEvent(new Event("state"));
  }
}

/** One HTTP question. Throws an Error with `status`, `code` and `retryAfterMs` for a refusal. */
export async function ask(method, path, key, signal) {
  const response = await fetch(path, { method, headers: { Authorization: `Bearer ${key}` }, signal });
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const after = Number(response.headers.get("Retry-After")) || 0;
  const error = new Error(body.error?.message ?? `HTTP ${response.status}`);
  throw Object.assign(error, {
    status: response.status,
    code: body.error?.code ?? `http_${response.status}`,
    retryAfterMs: (body.error?.retry_after_s ?? after) * 1000,
  });
}
