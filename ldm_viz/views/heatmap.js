import { clamp, colourTable, formatFigure, formatMeasured, magnitude, make, paint, setText } from "./core.js";
import { countMarks, drawMarks } from "./marks.js";
import { makeSelect, makeTitle } from "./panels.js";
// Heatmaps of maps: one channel, the norm over channels, or all channels side by side.

/** @typedef {import("./panels.js").Context} Context */
/** @typedef {import("./panels.js").Panel} Panel */

/**
 * What is drawn into cells of equal size, row by row.
 * @typedef {{name: string, channels: (number | "norm")[], limitOf: number | "norm" | "all"}} Choice
 */

/** What models predict, by the name that diffusers has for it. */
const PREDICTIONS = /** @type {Record<string, [string, string]>} */ ({
  epsilon: ["ε", "noise prediction"],
  v_prediction: ["v", "velocity prediction"],
  flow_prediction: ["v", "flow prediction"],
  sample: ["x̂", "sample prediction"],
});

/**
 * The noise prediction: one branch, one channel or the norm.
 * @param {Context} context
 * @returns {Panel}
 */
export function makeNoise(context) {
  const { model, header, maps } = context;
  const names = maps.branches.map((name) => /** @type {[any, string]} */ ([name, name]));
  /** @type {[any, string][]} */
  const each = Array.from({ length: maps.channels }, (_, i) => [i, `channel ${i}`]);
  if (maps.channels > 1) each.push(["norm", "norm"]);
  const [letter, title] = PREDICTIONS[header.prediction] ?? ["ε", "model prediction"];
  return makeHeatmap(context, {
    panel: "noise",
    heading: makeTitle([letter, ""], title, makeSelect(context, "Branch", "branch", names)),
    controls: [
      makeSelect(context, "Channel", "channel", each),
      makeSelect(context, "Colours", "scale", [["run", "run scale"], ["step", "step scale"]]),
    ],
    choose: () => ({ name: model.get("branch"), channels: [model.get("channel")], limitOf: model.get("channel") }),
    describe({ name, channels: [channel] }) {
      const what = name === "guidance delta" ? "guidance delta, conditional − unconditional" : `${title}, ${name}`;
      return `${what}, ${channel === "norm" ? "norm over channels" : `channel ${channel}`}`;
    },
  });
}

/**
 * The latents: all channels side by side; a click on one chooses it for the noise prediction too.
 * @param {Context} context
 * @returns {Panel}
 */
export function makeChannels(context) {
  const all = Array.from({ length: context.maps.channels }, (_, i) => i);
  return makeHeatmap(context, {
    panel: "channels",
    heading: makeTitle(["z", "t"], all.length > 1 ? `latents, channels 0 to ${all.length - 1}` : "latents"),
    controls: [],
    choose: () => ({ name: "latents", channels: all, limitOf: "all" }),
    describe: () => "latents, all channels",
    onPick: (channel) => context.choose("channel", channel),
  });
}

/**
 * @param {Context} context
 * @param {{panel: string, heading: HTMLElement, controls: HTMLElement[], choose: () => Choice,
 *   describe: (choice: Choice) => string, onPick?: (channel: number) => void}} what
 * @returns {Panel}
 */
function makeHeatmap({ model, header, maps, surfaces, signal }, { panel, heading, controls, choose, describe, onPick }) {
  const { width, height, area } = maps;
  const { factor } = maps.header;
  const canvas = surfaces.add(make("canvas", { role: "img", class: "ldm-cells" }));
  const bar = make("div", { class: "ldm-bar" }, make("i"));
  const needle = /** @type {HTMLElement} */ (bar.firstChild);
  const ends = [make("span"), make("span"), make("span")];
  const readout = make("output", { class: "ldm-value" });
  const box = make("div", { class: "ldm-box" }, canvas);
  const element = make(
    "figure",
    { class: "ldm-panel", "data-panel": panel },
    heading,
    box,
    make("div", { class: "ldm-scale" }, bar, make("div", { class: "ldm-ends" }, ...ends)),
    readout,
  );
  if (controls.length) element.append(make("div", { class: "ldm-choices" }, ...controls));

  const count = choose().channels.length;
  const columns = Math.ceil(Math.sqrt(count));
  const rows = Math.ceil(count / columns);
  box.style.setProperty("--aspect", String(clamp((columns * width) / (rows * height), 0.25, 4)));
  const cells = document.createElement("canvas");
  cells.width = columns * width;
  cells.height = rows * height;
  const ink = cells.getContext("2d");
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const values = Array.from({ length: count }, () => new Float32Array(area));
  const light = colourTable(header.colours.light);
  const night = colourTable(header.colours.dark);
  const sequential = colourTable(header.colours.sequential);

  let limit = 0;
  let signed = true;
  /** @type {Choice} */
  let choice = { name: "", channels: [], limitOf: 0 };
  /** @type {[number, number, number] | null} place among the channels, column, row */
  let hover = null;
  let shown = { step: -1, sample: 0 };
  let drawn = "";

  function showValue() {
    readout.classList.toggle("ldm-pointed", Boolean(hover));
    if (!hover) {
      if (!needle.hidden) needle.hidden = true;
      setText(readout, countMarks(values, limit) || (count > 1 ? "Point at a value, click a channel." : "Point at a value to read it."));
      return;
    }
    const [place, column, row] = hover;
    const value = values[place][row * width + column];
    const channel = choice.channels[place];
    const { step, sample } = shown;
    // Beyond the coded range only a bound is known.
    const coded = maps.scale(choice.name, sample, step) + maps.uncertainty(choice.name, sample, step);
    const bound = channel !== "norm" && Number.isFinite(value) && Math.abs(value) > coded ? (value > 0 ? "≥ " : "≤ ") : "";
    const where = `${count > 1 ? `channel ${channel}, ` : ""}row ${row * factor}, column ${column * factor}`;
    setText(readout, `${where}: ${bound}${formatMeasured(value, maps.uncertainty(choice.name, sample, step))}`);
    const at = limit > 0 && Number.isFinite(value) ? (signed ? (value / limit + 1) / 2 : value / limit) : 0;
    needle.style.left = `${clamp(at, 0, 1) * 100}%`;
    needle.hidden = !Number.isFinite(value);
  }

  /** @param {PointerEvent | MouseEvent} event */
  function placeOf(event) {
    const x = Math.floor((event.offsetX / canvas.clientWidth) * columns * width);
    const y = Math.floor((event.offsetY / canvas.clientHeight) * rows * height);
    if (x < 0 || y < 0 || x >= columns * width || y >= rows * height) return null;
    const place = Math.floor(y / height) * columns + Math.floor(x / width);
    return place < count ? /** @type {[number, number, number]} */ ([place, x % width, y % height]) : null;
  }
  canvas.addEventListener("pointermove", (event) => { hover = placeOf(event); showValue(); }, { signal });
  canvas.addEventListener("pointerleave", () => { hover = null; showValue(); }, { signal });
  if (onPick && count > 1) {
    canvas.addEventListener("click", (event) => {
      const place = placeOf(event);
      if (place) onPick(Number(choice.channels[place[0]]));
    }, { signal });
  }

  return {
    element,
    draw({ step, sample, dark }) {
      if (element.hidden) return;
      choice = choose();
      const { name, channels, limitOf } = choice;
      const pen = surfaces.pen(canvas);
      if (!pen || !ink || !maps.has(name)) return;
      const scale = model.get("scale") ?? "run";
      const key = [maps.version, name, channels.join(), scale, model.get("channel"), step, sample, dark, canvas.width, canvas.height].join("/");
      if (key === drawn) return;
      drawn = key;
      shown = { step, sample };
      channels.forEach((channel, k) => maps.read(name, sample, step, channel, values[k]));
      signed = channels[0] !== "norm";
      limit = scale === "step" ? Math.max(...values.map((one) => magnitude(one, 0.998))) : maps.limit(name, sample, limitOf);
      const table = signed ? (dark ? night : light) : sequential;
      values.forEach((one, k) => {
        paint(one, limit, signed, table, pixels);
        ink.putImageData(image, (k % columns) * width, Math.floor(k / columns) * height);
      });
      pen.imageSmoothingEnabled = false;
      pen.clearRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(cells, 0, 0, canvas.width, canvas.height);
      drawMarks(pen, values, maps, columns, rows, limit, signed && !dark ? "#fff" : "#000");
      if (count > 1) drawGaps(pen, columns, rows);
      const stops = signed ? (dark ? header.colours.dark : header.colours.light) : header.colours.sequential;
      const gradient = `linear-gradient(90deg, ${stops.join(", ")})`;
      if (bar.dataset.stops !== gradient) bar.style.background = bar.dataset.stops = gradient;
      setText(ends[0], signed ? formatFigure(-limit) : "0");
      setText(ends[1], signed ? "0" : formatFigure(limit / 2));
      setText(ends[2], formatFigure(limit));
      canvas.setAttribute("aria-label", `${describe(choice)}, at step ${step}`);
      canvas.dataset.step = String(step);
      showValue();
    },
  };
}

/**
 * Lines of the page's own ground between channels.
 * @param {CanvasRenderingContext2D} pen @param {number} columns @param {number} rows
 */
function drawGaps(pen, columns, rows) {
  const { width, height } = pen.canvas;
  const line = Math.max(2, Math.round(width / 90));
  for (let c = 1; c < columns; c++) pen.clearRect((c * width) / columns - line / 2, 0, line, height);
  for (let r = 1; r < rows; r++) pen.clearRect(0, (r * height) / rows - line / 2, width, line);
}
