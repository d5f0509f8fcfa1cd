import { clamp, make, makeRoot, watch } from "./core.js";
import { makeCharts } from "./charts.js";
import { makeChannels, makeNoise } from "./heatmap.js";
import { capital, makePicture, makeSelect } from "./panels.js";
import { showRun } from "./stage.js";
import { makeStrip } from "./strip.js";
import { makeTransport, startClock } from "./transport.js";
// The explorer: pictures, latents, noise predictions and statistics of a run under one slider.

/** @typedef {import("./core.js").Model} Model */
/** @typedef {import("./panels.js").Context} Context */
/** @typedef {import("./panels.js").Header} Header */
/** @typedef {import("./panels.js").Panel} Panel */
/** @typedef {import("./panels.js").Shown} Shown */
/** @typedef {import("./pictures.js").Series} Series */

/** Panels by the names Python has for them. */
const PANELS = /** @type {[string, string][]} */ ([
  ["latents", "sample x_t"],
  ["x0", "predicted x_0"],
  ["next", "next sample"],
  ["noise", "noise prediction"],
  ["channels", "latent channels"],
  ["filmstrip", "filmstrip"],
  ["statistics", "statistics"],
]);
const TRAITS = ["branch", "channel", "scale", "playing", "speed", "panels", "_note"];

/** @param {{model: Model, signal: AbortSignal}} host */
function initialize({ model, signal }) {
  startClock(model, () => model.get("_header").steps - 1, signal);
}

/** @param {{model: Model, el: HTMLElement, signal: AbortSignal}} host */
function render(host) {
  const root = makeRoot("ldm-explorer", host.signal);
  showRun(host, root, TRAITS, (context) => {
    const { model, header, maps } = context;
    /** @type {Record<string, Series>} */
    const series = model.get("_series");
    const size = series.latents ?? series.x0 ?? series.images;
    const aspect = size ? size.width / size.height : maps.area ? maps.width / maps.height : 1;
    root.style.setProperty("--aspect", String(clamp(aspect, 0.25, 4)));
    const heading = makeHeading(context);
    const squares = makeSquares(context, series);
    const stage = make("div", { class: "ldm-stage" }, ...squares.map(({ element }) => element));
    const rows = ["latents", "x0"].filter((name) => series[name]);
    const film = rows.length && header.steps ? makeStrip(context, rows, aspect) : null;
    const transport = makeTransport(context, header.words, film && film.element);
    const charts = makeCharts(context);
    if (!header.charts.length) charts.element.remove();
    const body = make("div", { class: "ldm-body" }, stage, transport.element, charts.element);
    root.append(heading.element, body);
    root.append(makeFooter(context));
    choosePanels(context, stage);
    return [heading, ...squares, transport, ...(film ? [film] : []), charts];
  });
}

/**
 * Show the panels that are chosen, and let the page know how many squares there are.
 * @param {Context} context
 * @param {HTMLElement} stage
 */
function choosePanels({ model, root, signal }, stage) {
  const choose = () => {
    const chosen = model.get("panels");
    for (const element of root.querySelectorAll("[data-panel]")) {
      if (element instanceof HTMLElement) element.hidden = !chosen.includes(element.dataset.panel);
    }
    stage.dataset.squares = String(stage.querySelectorAll(".ldm-panel:not([hidden])").length);
  };
  watch(model, ["panels"], choose, signal);
  choose();
}

/**
 * @param {Context} context
 */
function makeHeading(context) {
  const { model, header } = context;
  const prompt = make("p", { class: "ldm-prompt" });
  const negative = make("p", { class: "ldm-negative" });
  const facts = make("ul", { class: "ldm-facts" });
  const filling = make("p", { class: "ldm-note", role: "status" });
  const element = make("header", { class: "ldm-heading" });
  const titles = make("div", { class: "ldm-titles" }, prompt, negative, facts);
  element.append(titles);
  if (header.batch > 1) {
    const options = header.samples.map((_, i) => /** @type {[any, string]} */ ([i, `${i}`]));
    element.append(makeSelect(context, "Sample", "sample", options));
  }
  if (header.video > 1) {
    const options = Array.from({ length: header.video }, (_, i) => /** @type {[any, string]} */ ([i, `${i} of ${header.video}`]));
    const frame = makeSelect(context, "Frame", "frame", options);
    // Other frames come from Python: a page without it shows the one it was written with.
    if (model.get("_alone")) frame.querySelector("select")?.setAttribute("disabled", "");
    element.append(frame);
  }
  if (header.status !== "complete") {
    const note = make("p", { class: "ldm-status", role: "note" }, make("strong", {}, `${capital(header.status)}.`));
    if (header.error) note.append(" ", header.error);
    titles.append(note);
  }
  for (const note of header.notes) titles.append(make("p", { class: "ldm-note" }, note));
  titles.append(filling);
  let shown = -1;
  return {
    element,
    /** @param {Shown} state */
    draw({ sample }) {
      const note = model.get("_note") ?? "";
      if (filling.textContent !== note) filling.textContent = note;
      if (filling.hidden === Boolean(note)) filling.hidden = !note;
      if (sample === shown) return;
      shown = sample;
      const { prompt: text, negative: without, seed } = header.samples[sample] ?? { prompt: "", negative: "", seed: "" };
      prompt.textContent = text || "A recorded run";
      negative.textContent = without ? `without: ${without}` : "";
      negative.hidden = !without;
      const all = seed ? [...header.facts, ["seed", seed]] : header.facts;
      facts.replaceChildren(
        ...all.map(([label, value]) =>
          make("li", {}, make("span", {}, label && `${label} `), value),
        ),
      );
    },
  };
}

/**
 * The squares: x_t, predicted x0, the next sample, noise prediction, latents.
 * @param {Context} context
 * @param {Record<string, Series>} series
 * @returns {Panel[]}
 */
function makeSquares(context, series) {
  const { maps } = context;
  const same = (/** @type {number} */ step) => step;
  /** @type {Panel[]} */
  const squares = [];
  if (Object.keys(series).length) {
    squares.push(
      makePicture(context, {
        panel: "latents", series: "latents", symbol: ["x", "t"], title: "the sample",
        caption: "What this step begins with, decoded.", index: same, missing: !series.latents,
      }),
    );
    const finished = !series.x0 && series.images;
    squares.push(
      finished
        ? makePicture(context, {
            panel: "x0", series: "images", symbol: ["", ""], title: "Finished picture",
            caption: "What the pipeline returned.", index: () => 0, missing: false,
          })
        : makePicture(context, {
            panel: "x0", series: "x0", symbol: ["x", "0"], title: "predicted clean picture",
            caption: "Where this step expects to end.", index: same, missing: !series.x0,
          }),
    );
    if (series.latents) {
      squares.push(
        makePicture(context, {
          panel: "next", series: "latents", symbol: ["x", "t−1"], title: "the next sample",
          caption: "What this step leaves behind.", index: (step) => step + 1, missing: false,
        }),
      );
    }
  }
  if (maps.branches.length) squares.push(makeNoise(context));
  if (maps.has("latents")) squares.push(makeChannels(context));
  return squares;
}

/** @param {Context} context */
function makeFooter({ model, header, root, signal, choose }) {
  const list = make("dl");
  for (const [name, value] of header.settings) list.append(make("dt", {}, name), make("dd", {}, value || "“”"));
  const keys = make("p", { class: "ldm-keys" }, make("kbd", {}, "←"), make("kbd", {}, "→"), " step ", make("kbd", {}, "Home"), make("kbd", {}, "End"), " ends ", make("kbd", {}, "space"), " plays");
  const element = make("footer", { class: "ldm-footer" });
  const boxes = make("fieldset", { class: "ldm-panels" }, make("legend", {}, "Show"));
  for (const [name, text] of PANELS) {
    if (!root.querySelector(`[data-panel=${name}]`)) continue;
    const box = make("input", { type: "checkbox" });
    const follow = () => { box.checked = model.get("panels").includes(name); };
    box.addEventListener("change", () => {
      const others = model.get("panels").filter((/** @type {string} */ panel) => panel !== name);
      choose("panels", PANELS.map(([panel]) => panel).filter((panel) => others.includes(panel) || (panel === name && box.checked)));
    }, { signal });
    watch(model, ["panels"], follow, signal);
    follow();
    boxes.append(make("label", {}, box, text));
  }
  element.append(make("details", {}, make("summary", {}, "Panels"), boxes));
  if (header.settings.length) element.append(make("details", {}, make("summary", {}, "Settings of this run"), list));
  element.append(keys);
  return element;
}

export const explorer = { initialize, render };
export default explorer;
