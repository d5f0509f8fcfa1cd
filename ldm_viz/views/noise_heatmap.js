import { make, makeRoot } from "./core.js";
import { makeNoise } from "./heatmap.js";
import { framePart } from "./part.js";
import { showRun } from "./stage.js";
// The noise prediction alone, as a heatmap.

/** @param {{model: import("./core.js").Model, el: HTMLElement, signal: AbortSignal}} host */
function render(host) {
  const root = makeRoot("ldm-part ldm-noise-heatmap", host.signal);
  showRun(host, root, ["branch", "channel", "scale", "slider"], (context) => {
    const { maps } = context;
    const aspect = maps.area ? maps.width / maps.height : 1;
    if (!maps.branches.length) {
      return [framePart(context, aspect, make("p", { class: "ldm-missing" }, "There is no noise prediction to show as a map."))];
    }
    const noise = makeNoise(context);
    return [noise, framePart(context, aspect, noise.element)];
  });
}

export const noiseHeatmap = { render };
export default noiseHeatmap;
