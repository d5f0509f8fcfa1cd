import { make, makeRoot } from "./core.js";
import { framePart } from "./part.js";
import { showRun } from "./stage.js";
import { makeStrip } from "./strip.js";
// The filmstrip alone: thumbnails of all steps, and the step's place among them.

/** @param {{model: import("./core.js").Model, el: HTMLElement, signal: AbortSignal}} host */
function render(host) {
  const root = makeRoot("ldm-part ldm-filmstrip", host.signal);
  showRun(host, root, ["slider"], (context) => {
    /** @type {Record<string, import("./pictures.js").Series>} */
    const series = context.model.get("_series");
    const rows = ["latents", "x0"].filter((name) => series[name]);
    const first = series[rows[0]];
    const aspect = first ? first.width / first.height : 1;
    if (!rows.length || !context.header.steps) {
      return [framePart(context, aspect, make("p", { class: "ldm-missing" }, "The run was recorded without pictures."))];
    }
    const strip = makeStrip(context, rows, aspect);
    return [strip, framePart(context, aspect, strip.element)];
  });
}

export const filmstrip = { render };
export default filmstrip;
