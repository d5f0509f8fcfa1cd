import { toBytes } from "./core.js";
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

/**
 * Draw a view from the state that the page carries. Python adds the call for the page's view.
 * @param {{initialize?: (host: any) => void, render: (host: any) => void}} view
 */
export function openPage(view) {
  const state = JSON.parse(document.querySelector("script[data-state]")?.textContent ?? "{}");
  for (const element of document.querySelectorAll("script[data-bytes]")) {
    // A name is a trait, or a trait and a place in its list.
    const [name, place] = (element.getAttribute("data-bytes") ?? "").split("/");
    const bytes = toBytes(fromBase64(element.textContent ?? ""));
    if (place === undefined) state[name] = bytes;
    else (state[name] ??= [])[Number(place)] = bytes;
    element.remove();
  }
  const el = document.querySelector("[data-view]");
  if (!(el instanceof HTMLElement)) return;
  const model = makeModel(state);
  const { signal } = new AbortController();
  view.initialize?.({ model, signal });
  view.render({ model, el, signal });
  // Keys work from the first moment on, before anything has the focus.
  const slider = el.querySelector("input[type=range]");
  document.addEventListener("keydown", (event) => {
    if (event.target !== document.body || !(slider instanceof HTMLElement)) return;
    const { key, ctrlKey, metaKey, altKey } = event;
    const again = new KeyboardEvent("keydown", { key, ctrlKey, metaKey, altKey, bubbles: true, cancelable: true });
    if (!slider.dispatchEvent(again)) event.preventDefault();
  }, { signal });
}
