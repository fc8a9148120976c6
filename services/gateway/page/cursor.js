// Where a reader is in an answer, and what of the next object is new to it. Offsets count bytes of UTF-8.
// The Python client decides the same in services/client/core/cursor.py.

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Takes a `delta` into `at` ({gen, offset, text}). Returns the new text, or null when text before it is missing. */
export function takeDelta(at, delta) {
  const bytes = encoder.encode(delta.text);
  const start = delta.offset - bytes.length;
  if (at.gen && at.gen !== delta.gen) return null;
  if (start > at.offset) return null;
  const fresh = delta.offset > at.offset ? decoder.decode(bytes.subarray(at.offset - start)) : "";
  at.gen = delta.gen;
  at.offset = Math.max(at.offset, delta.offset);
  at.text += fresh;
  return fresh;
}

/** Begins the text anew under another name. */
export function takeRestarted(at, restarted) {
  at.gen = restarted.gen;
  at.offset = 0;
  at.text = "";
}
