import { explorer } from "./explorer.js";
// An exported page's own start: a model that lives in this page alone, in place of the notebook's.

/** @typedef {import("./core.js").Model} Model */

/**
 * @param {Record<string, any>} state
 * @returns {Model}
 */
function makeModel(state) {
  /** @type {Map<string, Set<() => void>>} */
  const listeners = new Map();
  return {
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      for (const listener of [...(listeners.get(`change:${name}`) ?? [])]) listener();
    },
    save_changes() {},
    on(event, listener) {
      const known = listeners.get(event) ?? new Set();
      listeners.set(event, known.add(listener));
    },
    off(event, listener) {
      listeners.get(event)?.delete(listener);
    },
  };
}

/** @param {string} text base64 */
function fromBase64(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

const state = JSON.parse(document.querySelector("script[data-state]")?.textContent ?? "{}");
for (const element of document.querySelectorAll("script[data-bytes]")) {
  state[element.getAttribute("data-bytes") ?? ""] = fromBase64(element.textContent ?? "");
  element.remove();
}
const place = document.querySelector("[data-view]");
if (place instanceof HTMLElement) {
  const model = makeModel(state);
  const { signal } = new AbortController();
  explorer.initialize({ model, signal });
  explorer.render({ model, el: place, signal });
  // Keys work from the first moment on, before anything has the focus.
  const slider = place.querySelector("input[type=range]");
  document.addEventListener("keydown", (event) => {
    if (event.target !== document.body || !(slider instanceof HTMLElement)) return;
    const { key, ctrlKey, metaKey, altKey } = event;
    const again = new KeyboardEvent("keydown", { key, ctrlKey, metaKey, altKey, bubbles: true, cancelable: true });
    if (!slider.dispatchEvent(again)) event.preventDefault();
  }, { signal });
}
