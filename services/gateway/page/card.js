// One prompt on the page. `data` is the plain object that is stored; a card only shows it.

const template = document.getElementById("card-template");

const BADGES = {
  sending: "sending", queued: "queued", running: "running", completed: "done", cancelled: "cancelled",
  expired: "expired", failed: "failed", refused: "refused", gone: "gone",
};
const CACHE = { exact: "from the cache", coalesced: "shared with a twin" };

/** Bytes of text per token, for the live rate; the end of each answer says how it really was. */
let bytesPerToken = 4;

export class Card {
  constructor(data, { onCancel, onRetry }) {
    this.data = data;
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.id = `card-${data.key}`;
    this.entry = document.createElement("li");
    this.entry.append(link(data));
    const part = (name) => this.element.querySelector(`.${name}`);
    this.parts = Object.fromEntries(
      ["asked", "badge", "ack", "task", "wait", "text", "problem", "code", "why", "ttft", "rate", "tokens", "account",
        "cancel", "retry"].map((name) => [name, part(name)]),
    );
    this.parts.asked.textContent = data.prompt;
    this.parts.text.append(document.createTextNode(data.text));
    this.parts.cancel.addEventListener("click", () => onCancel(this));
    this.parts.retry.addEventListener("click", () => onRetry(this));
    this.show();
  }

  get unfinished() {
    return ["sending", "queued", "running"].includes(this.data.state);
  }

  append(text) {
    this.parts.text.firstChild.appendData(text);
  }

  clear() {
    this.parts.text.firstChild.data = "";
  }

  /** Brings everything but the text up to date. */
  show() {
    const { data, parts } = this;
    this.element.dataset.state = this.entry.dataset.state = data.state;
    parts.badge.textContent = BADGES[data.state];
    parts.ack.textContent = data.ackMs === undefined ? "" : `accepted in ${data.ackMs} ms as`;
    parts.task.textContent = data.task ?? "";
    parts.wait.hidden = !(this.unfinished && !data.text && (data.position || data.eta_s || data.again));
    parts.wait.textContent = waiting(data);
    parts.text.setAttribute("aria-busy", String(this.unfinished));
    parts.problem.hidden = !data.problem;
    parts.code.textContent = data.problem?.code ?? "";
    parts.why.textContent = data.problem?.message ?? "";
    parts.cancel.hidden = !this.unfinished;
    parts.cancel.disabled = !data.task || data.cancelling;
    parts.retry.hidden = this.unfinished || data.state === "completed";
    parts.account.hidden = !data.done;
    if (data.done) parts.account.textContent = account(data);
    this.measure();
  }

  /** The three meters; called often while text comes. */
  measure() {
    const { data, parts } = this;
    const usage = data.done?.usage;
    const tokens = usage?.completion_tokens ?? data.offset / bytesPerToken;
    const about = usage ? "" : "≈ ";
    parts.ttft.textContent = data.ttftMs === undefined ? "–" : duration(data.ttftMs);
    parts.tokens.textContent = tokens ? `${about}${Math.round(tokens)}` : "–";
    const timings = data.done?.timings; // the gateway's own once they are known: few frames may carry many tokens
    const seconds = timings ? timings.total_s - timings.ttft_s : ((data.lastAt ?? 0) - (data.firstAt ?? 0)) / 1000;
    parts.rate.textContent = tokens > 1 && seconds > 0.02 ? `${about}${((tokens - 1) / seconds).toFixed(1)}` : "–";
  }
}

/** Learn from a finished answer how long its tokens are. */
export function learn(data) {
  const tokens = data.done.usage?.completion_tokens;
  if (tokens > 4 && data.offset > 0) bytesPerToken = data.offset / tokens;
}

function link(data) {
  const anchor = document.createElement("a");
  anchor.href = `#card-${data.key}`;
  const dot = document.createElement("span");
  dot.className = "dot";
  const text = document.createElement("span");
  text.textContent = data.prompt.slice(0, 120);
  anchor.append(dot, text);
  return anchor;
}

function waiting(data) {
  if (data.again) return "The text so far was lost with the process that had it; the answer begins anew.";
  const place = data.position ? `${ordinal(data.position)} in the queue` : "waiting";
  return data.eta_s ? `${place}, about ${duration(data.eta_s * 1000)} to go` : place;
}

function account({ done }) {
  const { usage, timings } = done;
  const parts = [];
  if (usage) {
    const cached = usage.cached_tokens ? ` (${usage.cached_tokens} known to the engine)` : "";
    parts.push(`${usage.prompt_tokens} prompt tokens${cached}`);
  }
  if (timings) {
    parts.push(`queued ${duration(timings.queued_s * 1000)}`, `total ${duration(timings.total_s * 1000)}`);
    if (timings.attempts > 1) parts.push(`${timings.attempts} attempts`);
  }
  if (done.finish_reason && done.finish_reason !== "stop") parts.push(`ended by ${done.finish_reason}`);
  if (done.cache) parts.push(CACHE[done.cache] ?? done.cache);
  return parts.join(" · ");
}

export function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

function ordinal(n) {
  const suffix = n % 100 >= 11 && n % 100 <= 13 ? "th" : (["th", "st", "nd", "rd"][n % 10] ?? "th");
  return `${n}${suffix}`;
}
