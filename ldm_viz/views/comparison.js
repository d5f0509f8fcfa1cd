import { clamp, colourTable, formatFigure, formatMeasured, magnitude, make, makeRoot, paint } from "./core.js";
import { makeCharts } from "./charts.js";
import { drawMarks } from "./marks.js";
import { channelColour, makeSelect } from "./panels.js";
import { showRun } from "./stage.js";
import { makeStrip } from "./strip.js";
import { makeTransport, showWords, startClock } from "./transport.js";
// The comparison: several runs side by side, their differences to one of them, and curves, under one cursor.

/** @typedef {import("./core.js").Model} Model */
/** @typedef {import("./panels.js").Shown} Shown */
/**
 * @typedef {{steps: number[][], words: string[], maps: string}} Alignment
 * @typedef {{name: string, words: string[], status: string, pictures: Record<string, string>}} Run
 * @typedef {Omit<import("./panels.js").Header, "facts"> & {runs: Run[], base: number, alignments: Record<string, Alignment>,
 *   partings: ({step: number | null, words: string} | null)[][], told: string[], title: string, facts: string[],
 *   differing: [string, string[]][], choices: string[]}} Header
 * @typedef {Omit<import("./panels.js").Context, "header"> & {header: Header}} Context
 * @typedef {{values: Float32Array, width: number, height: number, factor: number, reach: number, limit: number,
 *   signed: boolean, apart: boolean, uncertainty: number, stamp: string}} Field
 * Values laid out in rows: their own reach, the limit of the colours that all runs share, and which drawing they are of.
 * @typedef {{by: string, reference: number, row: number[], prefix: string, picture: string, quantity: string,
 *   difference: string, channel: number | "norm", scale: string, step: number, dark: boolean,
 *   hover: [number, number] | null}} Look
 * What is looked at: all that the drawing of each run depends on.
 */

const LOOKS = ["by", "reference", "series", "difference", "channel", "scale", "playing", "speed", "_note"];
const SERIES = /** @type {Record<string, string>} */ ({
  x0: "predicted x0",
  latents: "sample",
  "x0 maps": "predicted x0, values",
  "latents maps": "sample, values",
});
const FAINTEST = 0.01; // of the values' own reach: differences below it are no more than a breath of colour
const PICTURE_LIMIT = 128; // of 255: differences of pictures beyond it get the strongest colour

/** @param {{model: Model, signal: AbortSignal}} host */
function initialize({ model, signal }) {
  startClock(model, () => model.get("_header").steps - 1, signal);
}

/** @param {{model: Model, el: HTMLElement, signal: AbortSignal}} host */
function render(host) {
  const root = makeRoot("ldm-comparison", host.signal);
  showRun(host, root, LOOKS, (given) => {
    const context = /** @type {Context} */ (/** @type {any} */ (given));
    const { header } = context;
    root.dataset.runs = String(header.runs.length);
    const look = makeLook(context);
    const key = makeKey(header);
    const runs = header.runs.map((_, k) => makeRun(context, look.now, key, k));
    const grid = make("div", { class: "ldm-runs" }, ...runs.map(({ element }) => element));
    const heading = makeHeading(context, look.now);
    const transport = makeCursor(context, look.now);
    const charts = makeCharts(given);
    const variants = Object.keys(header.alignments);
    const curves = {
      /** @param {Shown} shown */
      draw: (shown) => charts.draw({ ...shown, sample: variants.indexOf(look.now.by) * header.runs.length + look.now.reference }),
    };
    const body = make("div", { class: "ldm-body" }, grid, transport.element);
    if (header.charts.length) body.append(charts.element);
    root.append(heading.element, body, makeFooter(header));
    return [look, heading, { draw: () => runs.forEach((run) => run.prepare()) }, { draw: () => settle(runs, look.now, key, header) }, ...runs, transport, curves];
  });
}

/**
 * What is looked at, read anew from the model at each drawing.
 * @param {Context} context
 */
function makeLook({ model, header, root }) {
  /** @type {Look} */
  const now = { by: "step", reference: 0, row: [], prefix: "", picture: "", quantity: "", difference: "", channel: 0, scale: "", step: 0, dark: false, hover: null };
  return {
    now,
    /** @param {Shown} shown */
    draw({ step, dark }) {
      const series = model.get("series");
      now.by = header.alignments[model.get("by")] ? model.get("by") : "step";
      const { steps, maps } = header.alignments[now.by];
      now.reference = clamp(model.get("reference"), 0, header.runs.length - 1);
      now.row = steps[step];
      now.prefix = maps;
      now.picture = series === "x0" || series === "latents" ? series : "";
      now.quantity = series.replace(/ maps$/, "");
      now.difference = model.get("difference") === "pictures" && !now.picture ? "values" : model.get("difference");
      now.channel = model.get("channel");
      now.scale = model.get("scale");
      now.step = step;
      now.dark = dark;
      root.dataset.difference = now.difference;
      root.dataset.reference = String(now.reference);
      root.dataset.by = now.by;
    },
  };
}

/**
 * @param {Context} context
 * @param {Look} look
 */
function makeHeading(context, look) {
  const { model, header } = context;
  const told = make("p", { class: "ldm-told", role: "status" });
  const filling = make("p", { class: "ldm-note", role: "status" });
  const facts = make("ul", { class: "ldm-facts" }, ...header.facts.map((fact) => make("li", {}, fact)));
  const controls = make("div", { class: "ldm-controls" });
  /** @type {[string, string, [any, string][]][]} */
  const selects = [
    ["Show", "series", header.choices.map((name) => [name, SERIES[name] ?? `${name} prediction`])],
    ["Difference", "difference", [["values", "of values"], ["pictures", "of pictures"], ["none", "none"]]],
    ["Reference", "reference", header.runs.map(({ name }, k) => [k, `${k} ${name}`])],
    ["Align by", "by", Object.keys(header.alignments).map((by) => [by, by === "noise" ? "noise level" : by])],
  ];
  if (context.maps.channels) {
    /** @type {[any, string][]} */
    const each = Array.from({ length: context.maps.channels }, (_, c) => [c, `${c}`]);
    selects.push(["Channel", "channel", [...each, ["norm", "norm of all"]]]);
  }
  selects.push(["Colours", "scale", [["step", "this step"], ["run", "all steps"]]]);
  for (const [label, trait, options] of selects) {
    if (options.length > 1) controls.append(makeSelect(context, label, trait, options));
  }
  const element = make("header", { class: "ldm-heading" }, make("p", { class: "ldm-prompt" }, header.title), facts, told, filling, controls);
  return {
    element,
    draw() {
      const words = header.told[look.reference];
      if (told.textContent !== words) told.textContent = words;
      const note = model.get("_note") ?? "";
      if (filling.textContent !== note) filling.textContent = note;
      filling.hidden = !note;
    },
  };
}

/** @param {Header} header */
function makeFooter(header) {
  const element = make("footer", { class: "ldm-footer" });
  if (header.differing.length) {
    const table = make("table", {}, make("tr", {}, make("td"), ...header.runs.map(({ name }) => make("th", { scope: "col" }, name))));
    for (const [name, values] of header.differing) {
      table.append(make("tr", {}, make("th", { scope: "row" }, name), ...values.map((value) => make("td", {}, value))));
    }
    element.append(make("details", {}, make("summary", {}, "Settings that differ"), make("div", { class: "ldm-wide" }, table)));
  }
  for (const note of header.notes) element.append(make("p", { class: "ldm-note" }, note));
  return element;
}

/**
 * The slider with its words, the mark where runs part, and a row of thumbnails for each run.
 * @param {Context} context
 * @param {Look} look
 */
function makeCursor(context, look) {
  const { header, pictures, move, root, signal } = context;
  const words = [...header.alignments.step.words];
  const flag = make("button", { type: "button", class: "ldm-flag" });
  const flags = make("div", { class: "ldm-flags" }, flag);
  const last = header.steps - 1;
  const most = header.runs.length;
  let by = "step";
  const marked = () => header.marks?.[Object.keys(header.alignments).indexOf(look.by) * most + look.reference] ?? -1;
  flag.addEventListener("click", () => move(marked()), { signal });
  const series = () => look.picture || (header.runs.some(({ pictures: own }) => own.x0) ? "x0" : "latents");
  /** @param {string} name @param {number} at */
  const place = (name, at) => {
    const own = header.runs[Number(name)].pictures[series()];
    return /** @type {[string, number]} */ ([`${name} ${own}`, own === "images" ? 0 : header.alignments[look.by].steps[at][Number(name)]]);
  };
  // To the strip, a run is a series, and its place is the cursor's.
  const asRows = {
    /** @param {string} name @param {number} _ @param {number} at */
    version: (name, _, at) => { const [own, step] = place(name, at); return `${step}/${pictures.version(own, 0, step)}`; },
    /** @param {string} name @param {number} _ @param {number} at */
    get: (name, _, at) => { const [own, step] = place(name, at); return pictures.get(own, 0, step); },
  };
  const aspect = Number(root.style.getPropertyValue("--aspect")) || 1;
  const drawn = header.runs.map((_, k) => k).filter((k) => Object.values(header.runs[k].pictures).some(Boolean));
  const film = drawn.length
    ? makeStrip(/** @type {any} */ ({ ...context, pictures: asRows }), drawn.map(String), aspect, most > 4 ? 32 : 44)
    : null;
  if (film) {
    const tags = make("div", { class: "ldm-tags" }, ...drawn.map((k) => makeChip(k, most)));
    film.element.append(tags);
  }
  const transport = makeTransport(/** @type {any} */ (context), words, flags, film && film.element);
  return {
    element: transport.element,
    /** @param {Shown} shown */
    draw(shown) {
      if (look.by !== by) {
        by = look.by;
        words.splice(0, words.length, ...header.alignments[by].words);
      }
      const at = marked();
      flag.hidden = at < 0;
      const share = last > 0 ? at / last : 0;
      flags.style.setProperty("--share", String(share));
      flags.classList.toggle("ldm-left", share > 0.5);
      flag.textContent = look.by === "step" ? `they part at step ${at}` : "they part here";
      transport.draw(shown);
      film?.draw({ ...shown, sample: (look.by === "noise" ? 2 : 0) + (series() === "x0" ? 1 : 0) });
    },
  };
}

/** @param {number} k @param {number} most */
function makeChip(k, most) {
  const chip = make("b", { class: "ldm-chip" }, String(k));
  chip.style.setProperty("--ldm-swatch", channelColour(k, most));
  return chip;
}

/** The colour bars of what is shown and of the differences. */
function makeKey(/** @type {Header} */ header) {
  const one = () => {
    const text = make("p");
    const bar = make("div", { class: "ldm-bar" });
    const ends = [make("span"), make("span"), make("span")];
    const element = make("div", { class: "ldm-scale" }, text, bar, make("div", { class: "ldm-ends" }, ...ends));
    return {
      element,
      /** @param {string} words @param {Field | null} field @param {boolean} dark */
      show(words, field, dark) {
        element.hidden = !field;
        if (!field) return;
        const { limit, signed } = field;
        text.textContent = words;
        const stops = stopsOf(header, field, dark);
        bar.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
        ends[0].textContent = signed ? formatFigure(-limit) : "0";
        ends[1].textContent = signed ? "0" : formatFigure(limit / 2);
        ends[2].textContent = formatFigure(limit);
      },
    };
  };
  const shown = one();
  const apart = one();
  const note = make("p", { class: "ldm-note" });
  return { element: make("div", { class: "ldm-key" }, shown.element, apart.element, note), shown, apart, note };
}

/**
 * Colours are shared by all runs: find what they cover, and say so beneath the reference.
 * @param {ReturnType<typeof makeRun>[]} runs
 * @param {Look} look
 * @param {ReturnType<typeof makeKey>} key
 * @param {Header} header
 */
function settle(runs, look, key, header) {
  for (const part of /** @type {("own" | "apart")[]} */ (["own", "apart"])) {
    const fields = /** @type {Field[]} */ (runs.map((run) => run[part]()).filter(Boolean));
    const limit = Math.max(0, ...fields.map((field) => field.reach));
    for (const field of fields) field.limit = limit;
    const channel = look.channel === "norm" ? "norm over channels" : `channel ${look.channel}`;
    const name = `${look.reference} ${header.runs[look.reference].name}`;
    const what = look.difference === "pictures" ? "pictures, largest of red, green and blue, of 255" : `${wordsOf(look.quantity)}, ${channel}`;
    const words = part === "own" ? `${wordsOf(look.quantity)}, ${channel}` : `Difference to ${name}: ${what}`;
    key[part === "own" ? "shown" : "apart"].show(words, fields[0] ?? null, look.dark);
  }
  const lossy = look.difference === "pictures" && runs.some((run) => run.lossy());
  key.note.hidden = !lossy;
  key.note.textContent = lossy ? "These pictures are compressed: small differences may come of that." : "";
}

/**
 * Colours of a field. Of a difference, 0 is the page's own ground, signed or not.
 * @param {Header} header
 * @param {Field} field
 * @param {boolean} dark
 */
function stopsOf({ colours }, { signed, apart }, dark) {
  const diverging = dark ? colours.dark : colours.light;
  if (signed) return diverging;
  return apart ? diverging.slice((diverging.length - 1) / 2) : colours.sequential;
}

/** @param {string} quantity */
function wordsOf(quantity) {
  return quantity === "x0" ? "predicted x0" : quantity === "latents" ? "sample" : `${quantity} prediction`;
}

/**
 * One run: its picture or map, the difference to the reference, and words.
 * @param {Context} context
 * @param {Look} look
 * @param {ReturnType<typeof makeKey>} key
 * @param {number} k
 */
function makeRun(context, look, key, k) {
  const { model, header, maps, pictures, root, signal } = context;
  const run = header.runs[k];
  const upper = makeSquare(context, look);
  const lower = makeSquare(context, look);
  const words = make("p", { class: "ldm-words" });
  const parting = make("p", { class: "ldm-caption" });
  const readout = make("output", { class: "ldm-value" });
  const name = make("h3", {}, makeChip(k, header.runs.length), " ", run.name);
  const tag = make("span", { class: "ldm-tag" }, "reference");
  const top = make("div", { class: "ldm-half" }, upper.element, words);
  const bottom = make("div", { class: "ldm-half" }, lower.element);
  const texts = make("div", { class: "ldm-texts" }, parting, readout);
  const element = make("figure", { class: "ldm-panel ldm-run", "data-run": k }, make("div", { class: "ldm-title" }, name, tag), top, bottom);
  name.title = run.name;
  if (run.status) element.append(make("p", { class: "ldm-note" }, run.status));
  bottom.append(texts);
  /** @type {Field | null} */
  let own = null;
  /** @type {Field | null} */
  let apart = null;
  let read = "";

  /** @param {string} series */
  const sizeOf = (series) => (model.get("_series") ?? {})[`${k} ${run.pictures[series]}`];
  /** @param {number} other @param {number} step */
  const pictureOf = (other, step) => {
    const series = header.runs[other].pictures[look.picture];
    const at = series === "images" ? 0 : step;
    return { bitmap: pictures.get(`${other} ${series}`, 0, at), version: pictures.version(`${other} ${series}`, 0, at), there: Boolean(series) };
  };

  /** Read the values that this drawing needs. */
  function prepare() {
    const self = k === look.reference;
    const shown = pictureOf(k, look.row[k]);
    const now = [look.by, look.reference, look.picture, look.quantity, look.difference, look.channel, look.scale, look.step, shown.version, pictureOf(look.reference, look.row[look.reference]).version].join("/");
    if (now === read) return;
    read = now;
    own = look.picture ? null : readMap(maps, look, String(k), 1, now);
    if (self || look.difference === "none") apart = null;
    else if (look.difference === "pictures") apart = subtractPictures(shown.bitmap, pictureOf(look.reference, look.row[look.reference]).bitmap, look, now);
    else if (k === header.base) apart = readMap(maps, look, `${look.reference}-${k}`, -1, now);
    else apart = readMap(maps, look, `${k}-${look.reference}`, 1, now);
  }

  for (const square of [upper, lower]) {
    square.canvas.addEventListener("pointermove", (event) => {
      look.hover = [event.offsetX / square.canvas.clientWidth, event.offsetY / square.canvas.clientHeight];
      root.dispatchEvent(new Event("ldm-hover"));
    }, { signal });
    square.canvas.addEventListener("pointerleave", () => { look.hover = null; root.dispatchEvent(new Event("ldm-hover")); }, { signal });
  }
  root.addEventListener("ldm-hover", () => tell(), { signal });

  function tell() {
    const { hover } = look;
    const first = own ?? apart;
    if (!hover || !first) {
      readout.textContent = "";
      return;
    }
    const parts = [];
    if (own) parts.push(valueAt(own, hover));
    if (apart) parts.push(`Δ ${valueAt(apart, hover)}`);
    const [row, column] = cellAt(first, hover);
    readout.textContent = `row ${row * first.factor}, column ${column * first.factor}: ${parts.join(", ")}`;
  }

  return {
    element,
    prepare,
    own: () => own,
    apart: () => apart,
    lossy: () => Boolean(look.picture && sizeOf(look.picture) && !sizeOf(look.picture).exact),
    draw() {
      const self = k === look.reference;
      const step = look.row[k];
      tag.hidden = !self;
      element.classList.toggle("ldm-reference", self);
      lower.element.hidden = self || look.difference === "none";
      if (self && key.element.parentElement !== bottom) bottom.prepend(key.element);
      const alike = header.partings[look.reference][k];
      parting.textContent = self ? "" : (alike?.words ?? "");
      parting.hidden = self;
      showWords(words, run.words[step]);
      const size = look.picture ? sizeOf(look.picture) : null;
      const aspect = size ? size.width / size.height : maps.area ? maps.width / maps.height : 1;
      element.style.setProperty("--aspect", String(clamp(aspect, 0.25, 4)));
      const { bitmap, version, there } = pictureOf(k, step);
      const what = `${run.name}, ${look.picture ? SERIES[look.picture] : wordsOf(look.quantity)}`;
      if (look.picture) upper.showPicture(bitmap, `${version}/${step}`, `${what}, step ${step}`, there ? "" : "Not recorded");
      else upper.showField(own, `${what}, step ${step}`, "Not recorded");
      if (!lower.element.hidden) lower.showField(apart, `${what}: difference to ${header.runs[look.reference].name}`, missingWords(look, there, Boolean(pictureOf(look.reference, 0).there)));
      tell();
    },
  };
}

/** @param {Look} look @param {boolean} here @param {boolean} there */
function missingWords(look, here, there) {
  if (look.difference === "pictures") return here && there ? "" : "No pictures to subtract";
  return "Not to be subtracted";
}

/**
 * A canvas in a box, or words where there is nothing to draw.
 * @param {Context} context
 * @param {Look} look
 */
function makeSquare({ header, surfaces, maps }, look) {
  const canvas = surfaces.add(make("canvas", { role: "img" }));
  const words = make("p", { class: "ldm-missing" });
  const element = make("div", { class: "ldm-box" }, canvas, words);
  /** @type {Map<string, Uint32Array>} */
  const tables = new Map();
  const cells = document.createElement("canvas");
  const ink = cells.getContext("2d");
  let drawn = "";
  /** @param {string} missing */
  const begin = (missing) => {
    words.hidden = !missing;
    canvas.hidden = Boolean(missing);
    words.textContent = missing;
    if (missing) drawn = "";
    return missing ? null : surfaces.pen(canvas);
  };
  return {
    element,
    canvas,
    /** @param {ImageBitmap | undefined} bitmap @param {string} version @param {string} label @param {string} missing */
    showPicture(bitmap, version, label, missing) {
      const pen = begin(missing);
      if (!pen || !bitmap) return;
      const now = `picture/${label}/${version}/${canvas.width}/${canvas.height}`;
      if (now === drawn) return;
      drawn = now;
      pen.imageSmoothingEnabled = true;
      pen.imageSmoothingQuality = "high";
      pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      canvas.setAttribute("aria-label", label);
    },
    /** @param {Field | null} field @param {string} label @param {string} missing */
    showField(field, label, missing) {
      const pen = begin(field ? "" : missing);
      if (!pen || !ink || !field) return;
      const { values, width, height, limit, signed, apart } = field;
      const now = [field.stamp, limit, look.dark, label, canvas.width, canvas.height].join("/");
      if (now === drawn) return;
      drawn = now;
      if (cells.width !== width || cells.height !== height) [cells.width, cells.height] = [width, height];
      const image = new ImageData(width, height);
      const stops = stopsOf(header, field, look.dark);
      const table = tables.get(stops[0] + stops.length) ?? colourTable(stops);
      tables.set(stops[0] + stops.length, table);
      paint(values, limit, signed, table, new Uint32Array(image.data.buffer));
      ink.putImageData(image, 0, 0);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(cells, 0, 0, canvas.width, canvas.height);
      if (width === maps.width) drawMarks(pen, [values], maps, 1, 1, limit, (signed || apart) && !look.dark ? "#fff" : "#000");
      canvas.setAttribute("aria-label", label);
    },
  };
}

/**
 * One run's map, or a difference of two, at the position that is looked at.
 * @param {import("./maps.js").Maps} maps
 * @param {Look} look
 * @param {string} which `1` or `1-0`
 * @param {number} sign
 * @param {string} stamp
 * @returns {Field | null} null where there is no such map
 */
function readMap(maps, look, which, sign, stamp) {
  const name = `${look.prefix}:${look.quantity}/${which}`;
  if (!maps.has(name)) return null;
  const { channel, step } = look;
  const signed = channel !== "norm";
  const values = new Float32Array(maps.area);
  maps.read(name, 0, step, channel, values);
  if (signed && sign < 0) for (let i = 0; i < values.length; i++) values[i] = -values[i];
  const apart = which.includes("-");
  const own = `${look.prefix}:${look.quantity}/${look.reference}`;
  // Rounding must not look like a difference, so colours never cover less than a share of the values themselves.
  const least = apart && maps.has(own) ? FAINTEST * maps.limit(own, 0, channel) : 0;
  const reach = Math.max(look.scale === "step" ? magnitude(values, 0.998) : maps.limit(name, 0, channel), least);
  const { width, height } = maps;
  return { values, width, height, factor: maps.header.factor, reach, limit: reach, signed, apart, uncertainty: maps.uncertainty(name, 0, step), stamp };
}

/**
 * The largest difference of the three colours at each pixel, 0 to 255.
 * @param {ImageBitmap | undefined} a
 * @param {ImageBitmap | undefined} b
 * @param {Look} look
 * @param {string} stamp
 * @returns {Field | null}
 */
function subtractPictures(a, b, look, stamp) {
  if (!a || !b) return null;
  const width = Math.min(a.width, b.width);
  const height = Math.min(a.height, b.height);
  const [one, other] = [a, b].map((bitmap) => {
    const canvas = make("canvas", { width, height });
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
    pen.drawImage(bitmap, 0, 0, width, height);
    return pen.getImageData(0, 0, width, height).data;
  });
  const values = new Float32Array(width * height);
  for (let i = 0; i < one.length; i++) {
    if (i % 4 < 3) values[i >> 2] = Math.max(values[i >> 2], Math.abs(one[i] - other[i]));
  }
  const reach = look.scale === "step" ? Math.max(magnitude(values, 0.998), 255 * FAINTEST) : PICTURE_LIMIT;
  return { values, width, height, factor: 1, reach, limit: reach, signed: false, apart: true, uncertainty: 0, stamp };
}

/** @param {Field} field @param {[number, number]} hover shares of the width and of the height */
function cellAt({ width, height }, [x, y]) {
  return [clamp(Math.floor(y * height), 0, height - 1), clamp(Math.floor(x * width), 0, width - 1)];
}

/** @param {Field} field @param {[number, number]} hover */
function valueAt(field, hover) {
  const [row, column] = cellAt(field, hover);
  return formatMeasured(field.values[row * field.width + column], field.uncertainty);
}

export const comparison = { initialize, render };
export default comparison;
