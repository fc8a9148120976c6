// What survives a reload, and nothing else: sessionStorage belongs to this tab and dies with it.

const KEY = "millrace.key";
const CARDS = "millrace.cards";
const DIALS = "millrace.dials";
const MOST_CARDS = 60;
const SAVE_MS = 200;

/** The API key: from `#key=` in the address, which is then cleaned, else as kept. */
export function takeKey() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  if (fragment.has("key")) {
    keepKey(fragment.get("key").trim());
    fragment.delete("key");
    const rest = fragment.toString();
    history.replaceState(null, "", location.pathname + location.search + (rest ? `#${rest}` : ""));
  }
  return sessionStorage.getItem(KEY) ?? "";
}

export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

export function forgetKey() {
  sessionStorage.removeItem(KEY);
}

export function loadDials() {
  return read(DIALS, {});
}

export function keepDials(dials) {
  sessionStorage.setItem(DIALS, JSON.stringify(dials));
}

export function loadCards() {
  return read(CARDS, []);
}

/** Saves the cards soon, and for certain when the page goes away. Text and offset are one object: always a true pair. */
export function keepCards(cards) {
  let timer = 0;
  const save = () => {
    timer = 0;
    try {
      sessionStorage.setItem(CARDS, JSON.stringify(cards().slice(-MOST_CARDS)));
    } catch {
      // The quota is used up: what is saved stays as it is, and a reload reads on from there.
    }
  };
  addEventListener("pagehide", save);
  return () => {
    timer ||= setTimeout(save, SAVE_MS);
  };
}

function read(name, otherwise) {
  try {
    return JSON.parse(sessionStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}
