import { clamp, isDark, toBytes, watch, watchTheme } from "./core.js";
import { Maps } from "./maps.js";
import { followKeys, focusOnClick, makeMoves } from "./panels.js";
import { Pictures } from "./pictures.js";
import { Surfaces } from "./surfaces.js";
// What a view of one run stands on: its data, and one drawing in an animation frame however much has changed.

/** @typedef {import("./panels.js").Context} Context */
/** @typedef {import("./panels.js").Shown} Shown */

/**
 * Make a view of one run.
 * @param {{model: import("./core.js").Model, el: HTMLElement, signal: AbortSignal}} host
 * @param {HTMLElement} root
 * @param {string[]} traits those that drawing depends on, besides the step
 * @param {(context: Context) => {draw: (shown: Shown) => void}[]} build fills the root, and returns what draws itself
 */
export function showRun({ model, el, signal }, root, traits, build) {
  /** @type {import("./panels.js").Header} */
  const header = model.get("_header");
  const last = Math.max(header.steps - 1, 0);
  let frame = 0;
  let resting = true; // nothing was drawn since the last frame
  const schedule = () => {
    if (!frame && !signal.aborted) frame = requestAnimationFrame(draw);
  };
  // A step is drawn and laid out at once, so that the frame after it has only to paint; more of them in that frame.
  const follow = () => {
    if (!resting || frame || signal.aborted) return schedule();
    draw();
    root.getBoundingClientRect();
    resting = false;
    requestAnimationFrame(() => { resting = true; });
  };
  const pictures = new Pictures(schedule, signal);
  const takePictures = () => pictures.update(toBytes(model.get("_frames")), model.get("_series") ?? {});
  takePictures();
  const maps = new Maps(toBytes(model.get("_maps")), header.maps);
  const moves = makeMoves(model, last, signal);
  // Colours are known no sooner than sizes are: when the element is in its page.
  const surfaces = new Surfaces(() => themed(), signal);
  const context = { model, header, signal, root, surfaces, pictures, maps, ...moves };
  const parts = build(context);

  let dark = false;
  function draw() {
    frame = 0;
    const sample = model.get("sample") ?? 0;
    const step = clamp(model.get("step"), 0, last);
    for (const part of parts) part.draw({ step, sample, dark });
    if (surfaces.measured) pictures.want(sample, step);
    root.dataset.step = String(step);
    root.dataset.ready = String(pictures.settled);
    root.dataset.theme = dark ? "dark" : "light";
  }
  const themed = () => {
    root.style.colorScheme = "";
    dark = isDark(root);
    root.style.colorScheme = dark ? "dark" : "light";
    schedule();
  };

  watch(model, ["step"], follow, signal);
  watch(model, ["sample", ...traits], schedule, signal);
  // The header of the pictures comes with them, so one of the two changes says both.
  watch(model, ["_frames"], () => { takePictures(); schedule(); }, signal);
  watch(model, ["_maps"], () => { maps.update(toBytes(model.get("_maps")), model.get("_header").maps); schedule(); }, signal);
  watchTheme(themed, signal);
  followKeys(root, model, moves, last, signal);
  focusOnClick(root, signal);
  signal.addEventListener(
    "abort",
    () => {
      cancelAnimationFrame(frame);
      root.remove();
    },
    { once: true },
  );
  el.append(root);
  themed();
}
