import { clamp, make, makeRoot, setText } from "./core.js";
import { makePicture } from "./panels.js";
import { showRun } from "./stage.js";
import { makeStrip } from "./strip.js";
import { makeTransport, startClock } from "./transport.js";
// A row of pictures under one slider, such as a walk between two conditions.

/** @typedef {import("./core.js").Model} Model */
/** @typedef {import("./pictures.js").Series} Series */

const NO_MAPS = { shape: [0, 0, 0], bits: 8, factor: 1, steps: 0, batch: 0, stacks: [] };

/**
 * The model as that of a run, whose steps are the frames.
 * @param {Model} model
 * @returns {Model}
 */
function asRun(model) {
  const own = (/** @type {string} */ name) => name.replace(/^(change:)?step$/, "$1frame");
  return {
    get: (name) => (name === "_header" ? { ...model.get(name), maps: NO_MAPS } : model.get(own(name))),
    set: (name, value) => model.set(own(name), value),
    save_changes: () => model.save_changes(),
    on: (event, listener) => model.on(own(event), listener),
    off: (event, listener) => model.off(own(event), listener),
  };
}

/** @param {{model: Model, signal: AbortSignal}} host */
function initialize({ model, signal }) {
  startClock(asRun(model), () => model.get("_header").steps - 1, signal);
}

/** @param {{model: Model, el: HTMLElement, signal: AbortSignal}} host */
function render({ model, el, signal }) {
  const root = makeRoot("ldm-picture-strip", signal);
  /** @type {{words: string[], details: string[], title: string}} */
  const { words, details, title } = model.get("_header");
  showRun({ model: asRun(model), el, signal }, root, ["playing"], (context) => {
    /** @type {Series} */
    const series = model.get("_series").pictures;
    const aspect = series.width / series.height;
    root.style.setProperty("--aspect", String(clamp(aspect, 0.25, 4)));
    const picture = makePicture(context, {
      panel: "picture", series: "pictures", symbol: ["", ""], title, caption: "", index: (step) => step, missing: false,
    });
    const canvas = picture.element.querySelector("canvas");
    const strip = makeStrip(context, ["pictures"], aspect);
    const transport = makeTransport({ ...context, unit: "picture" }, words, strip.element);
    transport.element.querySelector("input")?.setAttribute("aria-label", "Frame");
    const detail = make("p", { class: "ldm-caption" });
    root.append(picture.element, transport.element, detail);
    const text = {
      /** @param {{step: number}} shown */
      draw({ step }) {
        setText(detail, details[step]);
        canvas?.setAttribute("aria-label", [words[step], details[step]].filter(Boolean).join(": "));
      },
    };
    return [picture, transport, strip, text];
  });
}

export const pictureStrip = { initialize, render };
export default pictureStrip;
