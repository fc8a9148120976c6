// The playground: composer, cards, history. The gateway's words are in the protocol `millrace.v1`.

import { Card, learn } from "/page/card.js";
import { takeDelta, takeRestarted } from "/page/cursor.js";
import { ask, Line } from "/page/line.js";
import { forgetKey, keepCards, keepDials, keepKey, loadCards, loadDials, takeKey } from "/page/store.js";

const $ = (id) => document.getElementById(id);
const DIALS = ["model", "max_tokens", "temperature", "class", "cache"];
const MODELS_MS = 8_000;

const line = new Line();
const cards = new Map(); // by idempotency key, oldest first
const byTask = new Map();
const save = keepCards(() => [...cards.values()].map((card) => card.data));
let key = "";

// -- signing in and out ---------------------------------------------------------------------------------------------

function enter(newKey) {
  key = newKey;
  keepKey(key);
  $("door-problem").hidden = true;
  line.open(key);
}

function showDoor(problem) {
  key = "";
  forgetKey();
  $("room").hidden = true;
  $("model").replaceChildren(); // another key may use others
  $("door").hidden = false;
  $("door-problem").hidden = !problem;
  if (problem) $("door-problem").textContent = `${problem.code}: ${problem.message}`;
  $("key").focus();
}

async function showRoom() {
  $("door").hidden = true;
  $("key").value = "";
  if ($("room").hidden) {
    $("room").hidden = false;
    $("prompt").focus({ preventScroll: true });
  }
  if ($("model").options.length === 0) await fillModels();
}

async function fillModels() {
  const kept = loadDials();
  const mine = key;
  const models = await ask("GET", "/v1/models", key, AbortSignal.timeout(MODELS_MS)).catch(() => ({ data: [] }));
  const names = models.data.map((model) => model.id).sort((a, b) => (b === "tiny") - (a === "tiny") || a.localeCompare(b));
  if (mine !== key) return;
  if ($("model").options.length === 0) $("model").append(...names.map((name) => new Option(name)));
  if (names.includes(kept.model)) $("model").value = kept.model;
}

// -- sending --------------------------------------------------------------------------------------------------------

function submit(prompt, dials) {
  const data = {
    key: crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join(""),
    prompt, dials, state: "sending", gen: "", offset: 0, text: "", sentAt: Date.now(),
  };
  const card = addCard(data);
  send(card);
  save();
  return card;
}

function addCard(data) {
  const card = new Card(data, { onCancel: cancel, onRetry: retry });
  cards.set(data.key, card);
  if (data.task) byTask.set(data.task, card);
  $("cards").prepend(card.element);
  $("history").prepend(card.entry);
  showHistory();
  return card;
}

/** Says to the gateway what this card needs: its prompt, or the rest of its answer. Said again it changes nothing. */
function send(card) {
  const { data } = card;
  if (data.task) {
    if (data.cancelling) line.send({ t: "cancel", task: data.task });
    line.send({ t: "resume", task: data.task, gen: data.gen, offset: data.offset });
  } else line.send({ t: "submit", key: data.key, input: data.prompt, ...data.dials });
}

function cancel(card) {
  card.data.cancelling = true;
  send(card);
  card.show();
  save();
}

function retry(card) {
  const { data } = card;
  if (data.state === "gone" || data.task) {
    submit(data.prompt, data.dials).element.focus();
    return;
  }
  // It was refused before it was accepted: the same key finds out whether the task exists after all.
  Object.assign(data, { state: "sending", problem: undefined, sentAt: Date.now() });
  card.show();
  send(card);
  save();
}

// -- hearing --------------------------------------------------------------------------------------------------------

const hear = {
  ack(card, { task, state, position, eta_s }) {
    const { data } = card;
    data.ackMs ??= Date.now() - data.sentAt;
    Object.assign(data, { task, state: data.text ? "running" : waitingState(state), position, eta_s });
    byTask.set(task, card);
    announce("Accepted");
  },
  status({ data }, { state, position, eta_s }) {
    if (!data.text) Object.assign(data, { state: waitingState(state), position, eta_s });
  },
  delta(card, delta) {
    const { data } = card;
    const text = takeDelta(data, delta);
    if (text === null) return void send(card);
    const now = Date.now();
    data.firstAt ??= now;
    data.ttftMs ??= now - data.sentAt;
    data.lastAt = now;
    data.again = false;
    data.state = "running";
    card.append(text);
    card.measure();
  },
  restarted(card, restarted) {
    takeRestarted(card.data, restarted);
    Object.assign(card.data, { state: "running", again: true, firstAt: undefined });
    card.clear();
    announce("The answer begins anew");
  },
  done(card, done) {
    const { data } = card;
    if (done.offset > data.offset) return void send(card);
    data.state = done.outcome;
    data.done = { usage: done.usage, timings: done.timings, cache: done.cache, finish_reason: done.finish_reason };
    data.problem = done.error ?? undefined;
    learn(data);
    announce(done.outcome === "completed" ? "Answer complete" : `Answer ${done.outcome}`);
  },
  gone({ data }, { code }) {
    data.state = "gone";
    data.problem = { code: "gone", message: code === "expired" ? "the answer's time is over" : "the gateway knows no such task" };
  },
  error(card, { code, message, retryable, retry_after_s }) {
    const { data } = card;
    if (data.task && retryable) {
      // The task is known and runs: only this connection may not read it right now.
      setTimeout(() => card.unfinished && send(card), ((retry_after_s ?? 1) + Math.random()) * 1000);
      return;
    }
    const later = retry_after_s ? ` (try again in ${Math.ceil(retry_after_s)} s)` : "";
    data.problem = { code, message: message + later };
    if (!data.task) data.state = "refused";
    announce(`Refused: ${message}`);
  },
};

line.addEventListener("object", ({ detail: object }) => {
  const card = cards.get(object.key) ?? byTask.get(object.task);
  if (!card) {
    if (object.t === "error") announce(`${object.code}: ${object.message}`);
    return;
  }
  if (!card.unfinished && object.t !== "ack") return;
  hear[object.t]?.(card, object);
  if (object.t !== "delta" || card.element.dataset.state !== card.data.state) {
    card.show();
    showHistory();
  }
  save();
});

line.addEventListener("state", () => {
  $("line").dataset.state = line.state;
  $("line-text").textContent = line.detail;
  if (line.state !== "open") return;
  showRoom();
  for (const card of cards.values()) if (card.unfinished) send(card);
});

line.addEventListener("refused", ({ detail }) => showDoor(detail));

function waitingState(state) {
  return state === "running" ? "running" : "queued";
}

function announce(words) {
  $("announcer").textContent = words;
}

function showHistory() {
  $("history-empty").hidden = cards.size > 0;
  const all = [...cards.values()];
  $("clear").hidden = all.every((card) => card.unfinished);
  document.body.classList.toggle("turning", all.some((card) => card.data.state === "running"));
}

// -- the page's own controls ----------------------------------------------------------------------------------------

function dials() {
  const asked = { model: $("model").value, class: $("class").value, cache: $("cache").value };
  if ($("max_tokens").value) asked.max_tokens = Number($("max_tokens").value);
  if ($("temperature").value) asked.temperature = Number($("temperature").value);
  return asked;
}

$("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const prompt = $("prompt").value;
  if (!prompt.trim()) return;
  const mine = key;
  $("prompt").value = "";
  $("prompt").focus();
  if (!$("model").value) await fillModels(); // typed before they came
  if (mine === key) submit(prompt, dials());
});

$("composer").addEventListener("change", () => keepDials(dials()));

$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});

$("door-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("key").value.trim()) enter($("key").value.trim());
});

function forget(some) {
  for (const card of some) {
    cards.delete(card.data.key);
    byTask.delete(card.data.task);
    card.element.remove();
    card.entry.remove();
  }
  showHistory();
  save();
}

$("clear").addEventListener("click", () => forget([...cards.values()].filter((card) => !card.unfinished)));

$("leave").addEventListener("click", () => {
  line.close();
  forget([...cards.values()]); // whoever comes next is somebody else, and would ask in their own name
  showDoor();
});

$("history").addEventListener("click", (event) => {
  const target = event.target.closest("a");
  if (!target) return;
  event.preventDefault();
  const card = document.querySelector(target.getAttribute("href"));
  card?.scrollIntoView({ block: "start", behavior: "smooth" });
  card?.focus({ preventScroll: true });
});

addEventListener("online", () => line.hurry());
document.addEventListener("visibilitychange", () => document.hidden || line.hurry());
addEventListener("hashchange", () => {
  if (new URLSearchParams(location.hash.slice(1)).has("key")) enter(takeKey());
});

// -- start ----------------------------------------------------------------------------------------------------------

const kept = loadDials();
for (const name of DIALS) if (kept[name] !== undefined && name !== "model") $(name).value = kept[name];
for (const data of loadCards()) addCard(data);
const known = takeKey();
if (known) enter(known);
else showDoor();
