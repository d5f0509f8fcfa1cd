import { clamp, make, watch } from "./core.js";
import { makeSlider, showWords } from "./transport.js";
// The frame of a view that shows one part of a run alone: the part, and a slider that can be left out.

/** @typedef {import("./panels.js").Context} Context */
/** @typedef {import("./panels.js").Shown} Shown */

/**
 * @param {Context} context
 * @param {number} aspect of the pictures or maps
 * @param {...HTMLElement} elements
 * @returns {{draw: (shown: Shown) => void}}
 */
export function framePart(context, aspect, ...elements) {
  const { model, header, root, signal } = context;
  const { track, show } = makeSlider(context, header.steps - 1);
  const words = make("p", { class: "ldm-words" });
  const control = make("div", { class: "ldm-transport" }, words, track);
  root.style.setProperty("--aspect", String(clamp(aspect, 0.25, 4)));
  root.append(...elements, control);
  const follow = () => { control.hidden = !model.get("slider"); };
  watch(model, ["slider"], follow, signal);
  follow();
  return {
    draw({ step }) {
      if (!header.steps) {
        words.textContent = "No step was recorded.";
        return;
      }
      show(step, header.words[step]);
      showWords(words, header.words[step]);
    },
  };
}
