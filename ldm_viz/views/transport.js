import { clamp, make, makeSvg, setText, watch } from "./core.js";
import { makeSelect } from "./panels.js";
// The slider over the steps, with its words, and the clock that plays.

/** @typedef {import("./core.js").Model} Model */
/** @typedef {import("./panels.js").Context} Context */

const SPEEDS = [1, 2, 4, 8, 16, 30];

/**
 * Once a model, however many views it has: the clock that advances the step while it plays.
 * @param {Model} model
 * @param {() => number} last the last step
 * @param {AbortSignal} signal
 */
export function startClock(model, last, signal) {
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let clock;
  let begun = 0; // where playing began: what Python was told last
  let place = 0;
  const stop = () => {
    clearInterval(clock);
    clock = undefined;
  };
  const go = (/** @type {number} */ step) => {
    place = step;
    model.set("step", step);
  };
  const advance = () => {
    if (model.get("step") < last()) go(model.get("step") + 1);
    if (model.get("step") >= last()) model.set("playing", false);
  };
  // A kernel that was busy repeats what it was told long ago.
  watch(model, ["step"], () => {
    const step = model.get("step");
    if (clock !== undefined && step !== place && step === begun) model.set("step", place);
  }, signal);
  const follow = () => {
    stop();
    if (model.get("playing")) {
      begun = model.get("step");
      if (begun >= last()) go(0);
      place = model.get("step");
      clock = setInterval(advance, 1000 / clamp(model.get("speed"), 0.1, 60));
    }
  };
  const settle = () => {
    if (!model.get("playing")) model.save_changes();
  };
  watch(model, ["playing", "speed"], follow, signal);
  watch(model, ["playing"], settle, signal);
  signal.addEventListener("abort", stop, { once: true });
  follow();
}

/**
 * The native slider.
 * @param {Pick<Context, "signal" | "move">} context
 * @param {number} last
 */
export function makeSlider({ signal, move }, last) {
  const slider = make("input", { type: "range", min: 0, max: Math.max(last, 0), step: 1, "aria-label": "Step" });
  slider.disabled = last < 1;
  slider.addEventListener("input", () => move(Number(slider.value)), { signal });
  return {
    track: make("div", { class: "ldm-track" }, slider),
    /** @param {number} step @param {string} words */
    show(step, words) {
      if (Number(slider.value) !== step) slider.value = String(step);
      slider.style.setProperty("--at", String(last > 0 ? step / last : 0));
      slider.setAttribute("aria-valuetext", words);
    },
  };
}

/**
 * A step in words, the first part of them strong.
 * @param {HTMLElement} element
 * @param {string} words
 */
export function showWords(element, words) {
  const parts = words.split(" · ");
  if (element.children.length !== parts.length) {
    element.replaceChildren(...parts.map((_, i) => make(i ? "span" : "strong")));
  }
  parts.forEach((part, i) => setText(element.children[i], part));
}

/**
 * @param {Pick<Context, "model" | "signal" | "move" | "choose"> & {unit?: string}} context where a step is called
 *     otherwise, its `unit`
 * @param {string[]} words each step in words
 * @param {...(HTMLElement | null)} below
 */
export function makeTransport(context, words, ...below) {
  const { model, signal, choose, unit = "step" } = context;
  const last = words.length - 1;
  const play = make("button", { type: "button", class: "ldm-play" });
  play.addEventListener("click", () => choose("playing", !model.get("playing")), { signal });
  play.disabled = last < 1;
  const { track, show } = makeSlider(context, last);
  const line = make("p", { class: "ldm-words" });
  const speeds = makeSelect(context, "Speed", "speed", SPEEDS.map((speed) => [speed, `${speed} ${unit}${speed === 1 ? "" : "s"} a second`]));
  const element = make("div", { class: "ldm-transport" }, play, make("div", {}, line), speeds, track);
  for (const part of below) if (part) element.append(part);
  let playing = /** @type {boolean | null} */ (null);
  return {
    element,
    /** @param {{step: number}} state */
    draw({ step }) {
      if (playing !== model.get("playing")) {
        playing = Boolean(model.get("playing"));
        play.setAttribute("aria-label", playing ? "Pause" : "Play");
        play.title = playing ? "Pause (space)" : "Play (space)";
        play.replaceChildren(makeIcon(playing ? "M4 3h3v10H4zM9 3h3v10H9z" : "M4.5 2.5v11l9-5.5z"));
      }
      if (last < 0) {
        line.textContent = "No step was recorded.";
        return;
      }
      show(step, words[step]);
      showWords(line, words[step]);
    },
  };
}

/** @param {string} path */
function makeIcon(path) {
  const icon = makeSvg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" });
  icon.append(makeSvg("path", { d: path }));
  return icon;
}
