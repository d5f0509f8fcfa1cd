import { clamp, make, watch } from "./core.js";
import { Maps } from "./maps.js";
import { Pictures } from "./pictures.js";
import { Surfaces } from "./surfaces.js";
// What the panels of all views share: what they are given, and their controls.

/**
 * @typedef {import("./core.js").Model} Model
 * @typedef {{title: string, hint: string, kind: "channels" | "runs" | "band" | "lines", log: boolean, series: string[],
 *   points: number, expected: boolean, zero?: boolean}} ChartHeader
 * @typedef {{
 *   steps: number, batch: number, video: number, samples: {prompt: string, negative: string, seed: string}[], facts: [string, string][],
 *   settings: [string, string][], status: string, error: string, notes: string[], words: string[], prediction: string,
 *   maps: import("./maps.js").MapsHeader, charts: ChartHeader[], marks?: number[],
 *   colours: {light: string[], dark: string[], sequential: string[]},
 * }} Header
 * @typedef {{step: number, sample: number, dark: boolean}} Shown
 * @typedef {{element: HTMLElement, draw: (shown: Shown) => void}} Panel
 * @typedef {{model: Model, header: Header, signal: AbortSignal, root: HTMLElement, surfaces: Surfaces,
 *   pictures: Pictures, maps: Maps, move: (step: number) => void, choose: (name: string, value: any) => void}} Context
 */

const SETTLE = 150; // ms without a move until Python hears of it
const CHANNEL_COLOURS = ["#2f7fd1", "#d9701f", "#2a9d6a", "#b0569e", "#8a7a1e", "#c2455a", "#17939e", "#7a67c9"];

/** @param {number} index @param {number} count */
export const channelColour = (index, count) =>
  count <= CHANNEL_COLOURS.length ? CHANNEL_COLOURS[index] : `hsl(${Math.round((index * 360) / count)} 60% 52%)`;

/** @param {string} text */
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/**
 * Ways to change the model: a step is told to Python when it has settled, a choice at once.
 * @param {Model} model
 * @param {number} last
 * @param {AbortSignal} signal
 */
export function makeMoves(model, last, signal) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let settling;
  let wanted = -1; // the step that is being moved to, until it has settled
  let moving = false;
  /** @type {number[]} */
  const sent = [];
  const save = () => {
    sent.push(model.get("step"));
    if (sent.length > 8) sent.shift();
    model.save_changes();
  };
  signal.addEventListener("abort", () => clearTimeout(settling), { once: true });
  // A kernel that was busy repeats what it was told long ago: that must not pull back who has moved on.
  watch(model, ["step"], () => {
    const step = model.get("step");
    if (!moving && wanted >= 0 && step !== wanted && sent.includes(step)) model.set("step", wanted);
  }, signal);
  return {
    /** @param {number} step */
    move(step) {
      moving = true;
      if (model.get("playing")) model.set("playing", false);
      wanted = clamp(Math.round(step), 0, last);
      model.set("step", wanted);
      moving = false;
      clearTimeout(settling);
      settling = setTimeout(() => {
        wanted = -1;
        save();
      }, SETTLE);
    },
    /** @param {string} name @param {any} value */
    choose(name, value) {
      model.set(name, value);
      save();
    },
  };
}

/**
 * Follow a pointer pressed on an element, as a share of its width.
 * @param {HTMLElement} element
 * @param {(share: number) => void} listener
 * @param {AbortSignal} signal
 */
export function onScrub(element, listener, signal) {
  const tell = (/** @type {PointerEvent} */ event) => {
    const box = element.getBoundingClientRect();
    listener(clamp((event.clientX - box.left) / box.width, 0, 1));
  };
  element.addEventListener(
    "pointerdown",
    (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      element.setPointerCapture(event.pointerId);
      focusSlider(element.closest(".ldm-view"));
      tell(event);
    },
    { signal },
  );
  element.addEventListener("pointermove", (event) => { if (element.hasPointerCapture(event.pointerId)) tell(event); }, { signal });
}

/** @param {Element | null} root */
export function focusSlider(root) {
  const slider = root?.querySelector("input[type=range]");
  if (slider instanceof HTMLElement) slider.focus({ preventScroll: true });
}

/**
 * A click on what has no use of its own gives the slider the focus, so that the arrow keys work.
 * @param {HTMLElement} root
 * @param {AbortSignal} signal
 */
export function focusOnClick(root, signal) {
  root.addEventListener("click", (event) => {
    const target = /** @type {Element} */ (event.target);
    if (target.closest("button, select, input, label, details, p, h3") || String(getSelection())) return;
    focusSlider(root);
  }, { signal });
}

/**
 * Keys that move: arrows, page keys, Home and End; the space bar plays where there is something to play.
 * @param {HTMLElement} root
 * @param {Model} model
 * @param {{move: (step: number) => void, choose: (name: string, value: any) => void}} moves
 * @param {number} last
 * @param {AbortSignal} signal
 */
export function followKeys(root, model, { move, choose }, last, signal) {
  root.addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || target.tagName === "SELECT") return;
    const checkbox = target instanceof HTMLInputElement && target.type === "checkbox";
    const step = model.get("step");
    const stride = Math.max(1, Math.round(last / 10));
    /** @type {Record<string, number>} */
    const moves = {
      ArrowLeft: step - 1,
      ArrowDown: step - 1,
      ArrowRight: step + 1,
      ArrowUp: step + 1,
      PageDown: step - stride,
      PageUp: step + stride,
      Home: 0,
      End: last,
    };
    const vertical = event.key === "ArrowUp" || event.key === "ArrowDown" || event.key.startsWith("Page");
    if (event.key in moves && (!vertical || (target.tagName === "INPUT" && !checkbox))) {
      move(moves[event.key]);
    } else if (event.key === " " && !checkbox && target.tagName !== "BUTTON" && target.tagName !== "SUMMARY") {
      if (last > 0 && typeof model.get("playing") === "boolean") choose("playing", !model.get("playing"));
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }, { signal });
}

/**
 * A native select with its label, kept equal to a trait.
 * @param {Pick<Context, "model" | "signal" | "choose">} context
 * @param {string} label
 * @param {string} trait
 * @param {[any, string][]} options value and text
 */
export function makeSelect({ model, signal, choose }, label, trait, options) {
  const select = make("select", { "aria-label": label });
  const fill = () => {
    const value = model.get(trait);
    const known = options.some(([option]) => option === value);
    const all = known ? options : [...options, /** @type {[any, string]} */ ([value, String(value)])];
    select.replaceChildren(...all.map(([, text], i) => make("option", { value: i }, text)));
    select.selectedIndex = all.findIndex(([option]) => option === value);
  };
  select.addEventListener(
    "change",
    () => {
      const option = options[select.selectedIndex];
      if (option) choose(trait, option[0]);
    },
    { signal },
  );
  watch(model, [trait], fill, signal);
  fill();
  return make("label", { class: "ldm-choice" }, make("span", {}, label), select);
}

/**
 * The heading of a panel: a symbol with an index, and words.
 * @param {[string, string]} symbol
 * @param {string} title
 * @param {...Node} more
 */
export function makeTitle([letter, index], title, ...more) {
  const symbol = make("span", { class: "ldm-symbol" }, letter, make("sub", {}, index));
  return make("div", { class: "ldm-title" }, make("h3", {}, ...(letter ? [symbol, " "] : []), title), ...more);
}

/**
 * A picture that follows the step.
 * @param {Context} context
 * @param {{panel: string, series: string, symbol: [string, string], title: string, caption: string,
 *   index: (step: number) => number, missing: boolean}} what
 * @returns {Panel}
 */
export function makePicture({ pictures, surfaces }, { panel, series, symbol, title, caption, index, missing }) {
  const canvas = make("canvas", { role: "img" });
  const box = make("div", { class: "ldm-box" });
  const element = make("figure", { class: "ldm-panel", "data-panel": panel }, makeTitle(symbol, title), box, make("p", { class: "ldm-caption" }, caption));
  if (missing) box.append(make("p", { class: "ldm-missing" }, "Not recorded"));
  else box.append(surfaces.add(canvas));
  let drawn = "";
  return {
    element,
    draw({ step, sample }) {
      if (missing || element.hidden) return;
      const at = index(step);
      const pen = surfaces.pen(canvas);
      if (pen) pictures.fit(canvas.width, canvas.height);
      const bitmap = pictures.get(series, sample, at);
      if (!bitmap || !pen) return;
      const key = `${sample}/${at}/${pictures.version(series, sample, at)}/${canvas.width}/${canvas.height}`;
      if (key === drawn) return;
      drawn = key;
      pen.imageSmoothingEnabled = bitmap.width !== canvas.width || bitmap.height !== canvas.height;
      pen.imageSmoothingQuality = "high";
      pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      canvas.dataset.step = String(step);
      canvas.setAttribute("aria-label", `${title} at step ${step}`);
    },
  };
}
