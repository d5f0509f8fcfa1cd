import { makeCharts } from "./charts.js";
import { makeRoot } from "./core.js";
import { framePart } from "./part.js";
import { showRun } from "./stage.js";
// The statistics alone: curves over the steps.

/** @param {{model: import("./core.js").Model, el: HTMLElement, signal: AbortSignal}} host */
function render(host) {
  const root = makeRoot("ldm-part ldm-latent-statistics", host.signal);
  showRun(host, root, ["channel", "slider"], (context) => {
    const charts = makeCharts(context);
    return [charts, framePart(context, 1, charts.element)];
  });
}

export const latentStatistics = { render };
export default latentStatistics;
