import {
  Pictures, clamp, colourTable, decodeValues, fitCanvas, formatFigure, isDark, magnitude, make, makeSvg,
  paint, powerTicks, ticks, toBytes, watch, watchTheme,
} from "./core.js";
// The explorer: pictures, noise predictions and statistics of a run under one slider.

/**
 * @typedef {import("./core.js").Model} Model
 * @typedef {{name: string, scales: number[][]}} Branch
 * @typedef {{title: string, hint: string, kind: "channels" | "band" | "lines", log: boolean, series: string[],
 *   points: number}} ChartHeader
 * @typedef {{width: number, height: number, full: [number, number], lengths: number[][]}} Series
 * @typedef {{
 *   steps: number, batch: number, samples: {prompt: string, negative: string, seed: string}[], facts: [string, string][],
 *   settings: [string, string][], status: string, error: string, notes: string[], words: string[],
 *   frames_source: string, frames: Record<string, Series>,
 *   maps: {shape: [number, number, number], bits: number, factor: number, branches: Branch[]},
 *   charts: ChartHeader[], colours: {light: string[], dark: string[], sequential: string[]},
 * }} Header
 * @typedef {{model: Model, header: Header, signal: AbortSignal, move: (step: number) => void,
 *   choose: (name: string, value: any) => void}} Context
 */

const SPEEDS = [1, 2, 4, 8, 16, 30];
const SETTLE = 150; // ms without a move until Python hears of it
const CHANNEL_COLOURS = ["#2f7fd1", "#d9701f", "#2a9d6a", "#b0569e", "#8a7a1e", "#c2455a", "#17939e", "#7a67c9"];

/** @param {number} index @param {number} count */
const channelColour = (index, count) =>
  count <= CHANNEL_COLOURS.length ? CHANNEL_COLOURS[index] : `hsl(${Math.round((index * 360) / count)} 60% 52%)`;

/** @param {string} text */
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/**
 * Once a model, however many views it has: the clock that advances the step while it plays.
 * @param {{model: Model, signal: AbortSignal}} host
 */
function initialize({ model, signal }) {
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let clock;
  const stop = () => {
    clearInterval(clock);
    clock = undefined;
  };
  const advance = () => {
    const last = model.get("_header").steps - 1;
    if (model.get("step") < last) model.set("step", model.get("step") + 1);
    if (model.get("step") >= last) model.set("playing", false);
  };
  const follow = () => {
    stop();
    if (model.get("playing")) {
      const last = model.get("_header").steps - 1;
      if (model.get("step") >= last) model.set("step", 0);
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
 * @param {{model: Model, el: HTMLElement, signal: AbortSignal}} host
 */
function render({ model, el, signal }) {
  /** @type {Header} */
  const header = model.get("_header");
  const root = make("div", { class: "ldm-explorer" });
  const last = Math.max(header.steps - 1, 0);

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let settling;
  signal.addEventListener("abort", () => clearTimeout(settling), { once: true });
  /** @type {Context} */
  const context = {
    model,
    header,
    signal,
    move(step) {
      if (model.get("playing")) model.set("playing", false);
      model.set("step", clamp(Math.round(step), 0, last));
      clearTimeout(settling);
      settling = setTimeout(() => model.save_changes(), SETTLE);
    },
    choose(name, value) {
      model.set(name, value);
      model.save_changes();
    },
  };

  let frame = 0;
  const schedule = () => {
    if (!frame && !signal.aborted) frame = requestAnimationFrame(draw);
  };
  const pictures = new Pictures(toBytes(model.get("_frames")), header.frames, schedule, signal);
  const [, mapHeight, mapWidth] = header.maps.shape;
  const size = header.frames.latents ?? header.frames.x0 ?? header.frames.images;
  const aspect = size ? size.width / size.height : mapWidth ? mapWidth / mapHeight : 1;
  const hasPictures = Boolean(size);
  const heading = makeHeading(context);
  const stage = makeStage(context, pictures, hasPictures);
  const film = makeFilmstrip(context, pictures, aspect);
  const transport = makeTransport(context, film.element);
  const charts = makeCharts(context);
  const parts = [heading, stage, transport, film, charts];
  const main = make("div", { class: "ldm-main" });
  for (const part of [stage, transport]) if (part.element) main.append(part.element);
  const body = make("div", { class: "ldm-body" }, main);
  if (charts.element) body.append(charts.element);
  root.append(heading.element, body, makeFooter(header));
  root.style.setProperty("--aspect", String(clamp(aspect, 0.25, 4)));

  let dark = false;
  function draw() {
    frame = 0;
    const sample = model.get("sample");
    const step = clamp(model.get("step"), 0, last);
    pictures.want(sample, step);
    root.style.setProperty("--at", String(last ? step / last : 0));
    for (const part of parts) part.draw({ step, sample, dark });
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

  const traits = ["step", "sample", "branch", "channel", "scale", "playing", "speed"];
  watch(model, traits, schedule, signal);
  watchTheme(themed, signal);
  root.addEventListener("keydown", (event) => onKey(event, context, last), { signal });
  root.addEventListener("click", (event) => onClick(event, root), { signal });
  const observer = new ResizeObserver(schedule);
  observer.observe(root);
  signal.addEventListener(
    "abort",
    () => {
      observer.disconnect();
      cancelAnimationFrame(frame);
      root.remove();
    },
    { once: true },
  );
  el.append(root);
  themed();
}

/**
 * A click on what has no use of its own gives the slider the focus, so that the arrow keys work.
 * @param {Event} event
 * @param {HTMLElement} root
 */
function onClick(event, root) {
  const target = /** @type {Element} */ (event.target);
  if (target.closest("button, select, input, label, details, p, h3") || String(getSelection())) return;
  focusSlider(root);
}

/** @param {Element | null} root */
function focusSlider(root) {
  const slider = root?.querySelector("input[type=range]");
  if (slider instanceof HTMLElement) slider.focus({ preventScroll: true });
}

/**
 * @param {KeyboardEvent} event
 * @param {Context} context
 * @param {number} last
 */
function onKey(event, { model, move, choose }, last) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || target.tagName === "SELECT") return;
  const step = model.get("step");
  const stride = Math.max(1, Math.round(last / 10));
  /** @type {Record<string, number>} */
  const moves = {
    ArrowLeft: step - 1,
    ArrowDown: step - 1,
    ArrowRight: step + 1,
    ArrowUp: step + 1,
    PageDown: step - stride,
    PageUp: step + stride,
    Home: 0,
    End: last,
  };
  const vertical = event.key === "ArrowUp" || event.key === "ArrowDown" || event.key.startsWith("Page");
  if (event.key in moves && (!vertical || target.tagName === "INPUT")) {
    move(moves[event.key]);
  } else if (event.key === " " && target.tagName !== "BUTTON" && target.tagName !== "SUMMARY") {
    if (last > 0) choose("playing", !model.get("playing"));
  } else {
    return;
  }
  event.preventDefault();
  event.stopPropagation();
}

/**
 * A native select with its label, kept equal to a trait.
 * @param {Context} context
 * @param {string} label
 * @param {string} trait
 * @param {[any, string][]} options value and text
 */
function makeSelect({ model, signal, choose }, label, trait, options) {
  const select = make("select", { "aria-label": label });
  const fill = () => {
    const value = model.get(trait);
    const known = options.some(([option]) => option === value);
    const all = known ? options : [...options, /** @type {[any, string]} */ ([value, String(value)])];
    select.replaceChildren(...all.map(([, text], i) => make("option", { value: i }, text)));
    select.selectedIndex = all.findIndex(([option]) => option === value);
  };
  select.addEventListener(
    "change",
    () => {
      const option = options[select.selectedIndex];
      if (option) choose(trait, option[0]);
    },
    { signal },
  );
  watch(model, [trait], fill, signal);
  fill();
  return make("label", { class: "ldm-choice" }, make("span", {}, label), select);
}

/** @param {Context} context */
function makeHeading(context) {
  const { header } = context;
  const prompt = make("p", { class: "ldm-prompt" });
  const negative = make("p", { class: "ldm-negative" });
  const facts = make("ul", { class: "ldm-facts" });
  const element = make("header", { class: "ldm-heading" });
  const titles = make("div", { class: "ldm-titles" }, prompt, negative, facts);
  element.append(titles);
  if (header.batch > 1) {
    const options = header.samples.map((_, i) => /** @type {[any, string]} */ ([i, `${i}`]));
    element.append(makeSelect(context, "Sample", "sample", options));
  }
  if (header.status !== "complete") {
    const note = make("p", { class: "ldm-status", role: "note" }, make("strong", {}, `${capital(header.status)}.`));
    if (header.error) note.append(" ", header.error);
    titles.append(note);
  }
  for (const note of header.notes) titles.append(make("p", { class: "ldm-note" }, note));
  let shown = -1;
  return {
    element,
    /** @param {{sample: number}} state */
    draw({ sample }) {
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
 * The squares: x_t, predicted x0, noise prediction.
 * @param {Context} context
 * @param {Pictures} pictures
 * @param {boolean} hasPictures
 */
function makeStage(context, pictures, hasPictures) {
  const { header } = context;
  /** @type {{element: HTMLElement, draw: (state: {step: number, sample: number, dark: boolean}) => void}[]} */
  const panels = [];
  if (hasPictures) {
    const how = header.frames_source === "linear" ? " Colours are a linear preview." : "";
    panels.push(makePicture(context, pictures, "latents", ["x", "t"], "the sample", `What this step begins with, decoded.${how}`));
    if (header.frames.x0 || !header.frames.images) {
      panels.push(makePicture(context, pictures, "x0", ["x", "0"], "predicted clean picture", "Where this step expects to end."));
    } else {
      panels.push(makePicture(context, pictures, "images", ["", ""], "Finished picture", "What the pipeline returned."));
    }
  }
  if (header.maps.branches.length) panels.push(makeHeatmap(context));
  const element = make("div", { class: "ldm-stage", "data-panels": panels.length });
  element.append(...panels.map((panel) => panel.element));
  return {
    element: panels.length ? element : null,
    /** @param {{step: number, sample: number, dark: boolean}} state */
    draw(state) {
      for (const panel of panels) panel.draw(state);
    },
  };
}

/**
 * @param {Context} context
 * @param {Pictures} pictures
 * @param {"latents" | "x0" | "images"} series
 * @param {[string, string]} symbol letter and index
 * @param {string} title
 * @param {string} caption
 */
function makePicture({ header }, pictures, series, [letter, index], title, caption) {
  const canvas = make("canvas", { role: "img" });
  const box = make("div", { class: "ldm-box" }, canvas);
  const name = make("span", { class: "ldm-symbol" }, letter, make("sub", {}, index));
  const heading = make("div", { class: "ldm-title" }, make("h3", {}, ...(letter ? [name, " "] : []), title));
  const element = make("figure", { class: "ldm-panel", "data-panel": series }, heading, box, make("p", { class: "ldm-caption" }, caption));
  const place = header.frames[series];
  if (!place) {
    canvas.remove();
    box.append(make("p", { class: "ldm-missing" }, "Not recorded"));
  }
  return {
    element,
    /** @param {{step: number, sample: number}} state */
    draw({ step, sample }) {
      if (!place) return;
      canvas.setAttribute("aria-label", `${title} at step ${step}`);
      const bitmap = pictures.get(series, sample, series === "images" ? 0 : step);
      const pen = fitCanvas(canvas);
      if (!bitmap || !pen) return;
      pen.imageSmoothingEnabled = true;
      pen.imageSmoothingQuality = "high";
      pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      canvas.dataset.step = String(step);
    },
  };
}

/** @param {Context} context */
function makeHeatmap(context) {
  const { model, header, signal } = context;
  const { shape, bits, factor, branches } = header.maps;
  const [channels, height, width] = shape;
  const area = height * width;
  const bytes = toBytes(model.get("_maps"));
  // Codes of two bytes must be aligned, which a trait's bytes need not be.
  const codes = bits === 16 ? new Uint16Array(bytes.slice().buffer) : bytes;

  const canvas = make("canvas", { role: "img", class: "ldm-cells" });
  const box = make("div", { class: "ldm-box" }, canvas);
  const bar = make("div", { class: "ldm-bar" }, make("i"));
  const needle = /** @type {HTMLElement} */ (bar.firstChild);
  const ends = [make("span"), make("span"), make("span")];
  const readout = make("output", { class: "ldm-value" });
  const choices = make("div", { class: "ldm-choices" });
  const names = branches.map(({ name }) => /** @type {[any, string]} */ ([name, name]));
  /** @type {[any, string][]} */
  const each = Array.from({ length: channels }, (_, i) => [i, `channel ${i}`]);
  if (channels > 1) each.push(["norm", "norm"]);
  choices.append(
    makeSelect(context, "Channel", "channel", each),
    makeSelect(context, "Colours", "scale", [["run", "run scale"], ["step", "step scale"]]),
  );
  const title = make("h3", {}, make("span", { class: "ldm-symbol" }, "ε"), " noise prediction");
  const heading = make("div", { class: "ldm-title" }, title, makeSelect(context, "Branch", "branch", names));
  const element = make(
    "figure",
    { class: "ldm-panel", "data-panel": "noise" },
    heading,
    box,
    make("div", { class: "ldm-scale" }, bar, make("div", { class: "ldm-ends" }, ...ends)),
    readout,
    choices,
  );

  const cells = document.createElement("canvas");
  cells.width = width;
  cells.height = height;
  const ink = cells.getContext("2d");
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const values = new Float32Array(area);
  const one = new Float32Array(area);
  /** @type {Map<string, number>} */
  const limits = new Map();
  const light = colourTable(header.colours.light);
  const night = colourTable(header.colours.dark);
  const sequential = colourTable(header.colours.sequential);

  /**
   * @param {number} branch @param {number} sample @param {number} step @param {number | string} channel
   * @param {Float32Array} out
   */
  function read(branch, sample, step, channel, out) {
    const start = (((branch * header.batch + sample) * header.steps + step) * channels) * area;
    const scale = branches[branch].scales[sample][step];
    if (channel !== "norm") {
      decodeValues(codes, start + Number(channel) * area, bits, scale, out);
      return;
    }
    out.fill(0);
    for (let c = 0; c < channels; c++) {
      decodeValues(codes, start + c * area, bits, scale, one);
      for (let i = 0; i < area; i++) out[i] += one[i] * one[i];
    }
    for (let i = 0; i < area; i++) out[i] = Math.sqrt(out[i]);
  }

  /** @param {number} branch @param {number} sample @param {number | string} channel */
  function runLimit(branch, sample, channel) {
    const key = `${branch}/${sample}/${channel}`;
    let limit = limits.get(key);
    if (limit === undefined) {
      // At most about 2^18 values, from steps evenly apart: enough for a quantile, quick for any run.
      const stride = Math.max(1, Math.ceil((header.steps * area) / 2 ** 18));
      const all = new Float32Array(Math.ceil(header.steps / stride) * area);
      for (let k = 0; k * stride < header.steps; k++) {
        read(branch, sample, k * stride, channel, all.subarray(k * area, (k + 1) * area));
      }
      limit = magnitude(all, 0.998);
      limits.set(key, limit);
    }
    return limit;
  }

  let limit = 0;
  let signed = true;
  /** @type {[number, number] | null} */
  let hover = null;
  const state = { step: -1, sample: 0, branch: 0 };

  function showValue() {
    needle.hidden = !hover;
    if (!hover) {
      let bad = 0;
      let beyond = 0;
      for (const value of values) {
        if (!Number.isFinite(value)) bad += 1;
        else if (Math.abs(value) > limit * 1.0001) beyond += 1;
      }
      const share = (/** @type {number} */ n) => `${n} of ${area}`;
      readout.textContent = [
        bad ? `${share(bad)} values are NaN or infinite (×)` : "",
        beyond ? `${share(beyond)} beyond the colours (•)` : "",
      ].filter(Boolean).join(", ") || "Point at a value to read it.";
      return;
    }
    const [column, row] = hover;
    const value = values[row * width + column];
    const channel = model.get("channel");
    // Beyond the coded range only a bound is known.
    const half = 2 ** (bits - 1);
    const coded = branches[state.branch].scales[state.sample][state.step] * (1 + 0.5 / (half - 3));
    const bound = channel !== "norm" && Number.isFinite(value) && Math.abs(value) > coded ? (value > 0 ? "≥ " : "≤ ") : "";
    readout.textContent = `row ${row * factor}, column ${column * factor}: ${bound}${formatFigure(value)}`;
    const at = limit > 0 && Number.isFinite(value) ? (signed ? (value / limit + 1) / 2 : value / limit) : 0;
    needle.style.left = `${clamp(at, 0, 1) * 100}%`;
    needle.hidden = !Number.isFinite(value);
  }

  canvas.addEventListener(
    "pointermove",
    (event) => {
      const x = Math.floor((event.offsetX / canvas.clientWidth) * width);
      const y = Math.floor((event.offsetY / canvas.clientHeight) * height);
      hover = x >= 0 && y >= 0 && x < width && y < height ? [x, y] : null;
      showValue();
    },
    { signal },
  );
  canvas.addEventListener("pointerleave", () => { hover = null; showValue(); }, { signal });

  return {
    element,
    /** @param {{step: number, sample: number, dark: boolean}} next */
    draw({ step, sample, dark }) {
      const name = model.get("branch");
      const channel = model.get("channel");
      const branch = branches.findIndex((known) => known.name === name);
      if (branch < 0 || !ink) return;
      Object.assign(state, { step, sample, branch });
      read(branch, sample, step, channel, values);
      signed = channel !== "norm";
      limit = model.get("scale") === "step" ? magnitude(values, 0.998) : runLimit(branch, sample, channel);
      const table = signed ? (dark ? night : light) : sequential;
      paint(values, limit, signed, table, pixels);
      ink.putImageData(image, 0, 0);
      const pen = fitCanvas(canvas);
      if (pen) {
        pen.imageSmoothingEnabled = false;
        pen.drawImage(cells, 0, 0, canvas.width, canvas.height);
        drawMarks(pen, values, width, height, limit, signed && !dark ? "#fff" : "#000");
      }
      const stops = signed ? (dark ? header.colours.dark : header.colours.light) : header.colours.sequential;
      bar.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
      ends[0].textContent = signed ? formatFigure(-limit) : "0";
      ends[1].textContent = signed ? "0" : formatFigure(limit / 2);
      ends[2].textContent = formatFigure(limit);
      const what = name === "guidance delta" ? "guidance delta, conditional − unconditional" : `noise prediction, ${name}`;
      canvas.setAttribute("aria-label", `${what}, ${channel === "norm" ? "norm over channels" : `channel ${channel}`}, at step ${step}`);
      canvas.dataset.step = String(step);
      showValue();
    },
  };
}

/**
 * Crosses on what is not finite, dots on what lies beyond the colours.
 * @param {CanvasRenderingContext2D} pen
 * @param {Float32Array} values
 * @param {number} width
 * @param {number} height
 * @param {number} limit
 * @param {string} dot colour that shows on the ends of the colour table
 */
function drawMarks(pen, values, width, height, limit, dot) {
  const w = pen.canvas.width / width;
  const h = pen.canvas.height / height;
  const size = Math.min(w, h);
  if (size < 4) return;
  pen.lineWidth = Math.max(1, size / 10);
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    const beyond = Math.abs(value) > limit * 1.0001;
    if (Number.isFinite(value) && !beyond) continue;
    const x = ((i % width) + 0.5) * w;
    const y = (Math.floor(i / width) + 0.5) * h;
    const r = size * 0.25;
    pen.beginPath();
    if (Number.isFinite(value)) {
      pen.fillStyle = dot;
      pen.arc(x, y, Math.max(1, size * 0.09), 0, 7);
      pen.fill();
      continue;
    }
    pen.strokeStyle = "#fff";
    if (Number.isNaN(value)) {
      pen.moveTo(x - r, y - r);
      pen.lineTo(x + r, y + r);
      pen.moveTo(x - r, y + r);
      pen.lineTo(x + r, y - r);
    } else {
      pen.moveTo(x - r, y);
      pen.lineTo(x + r, y);
      if (value > 0) {
        pen.moveTo(x, y - r);
        pen.lineTo(x, y + r);
      }
    }
    pen.stroke();
  }
}

/**
 * @param {Context} context
 * @param {HTMLElement | null} film
 */
function makeTransport(context, film) {
  const { model, header, signal, move, choose } = context;
  const last = header.steps - 1;
  const play = make("button", { type: "button", class: "ldm-play" });
  play.addEventListener("click", () => choose("playing", !model.get("playing")), { signal });
  play.disabled = last < 1;
  const slider = make("input", { type: "range", min: 0, max: Math.max(last, 0), step: 1, "aria-label": "Step", "data-lm-suppress-shortcuts": true });
  slider.disabled = last < 1;
  slider.addEventListener("input", () => move(Number(slider.value)), { signal });
  const words = make("p", { class: "ldm-words" });
  const element = make(
    "div",
    { class: "ldm-transport" },
    play,
    words,
    makeSelect(context, "Speed", "speed", SPEEDS.map((speed) => [speed, `${speed} ${speed === 1 ? "step" : "steps"} a second`])),
    slider,
  );
  if (film) element.append(film);
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
      if (Number(slider.value) !== step) slider.value = String(step);
      if (last < 0) {
        words.textContent = "No step was recorded.";
        return;
      }
      const [first, ...rest] = header.words[step].split(" · ");
      slider.setAttribute("aria-valuetext", header.words[step]);
      words.replaceChildren(make("strong", {}, first), ...rest.map((part) => make("span", {}, part)));
    },
  };
}

/** @param {string} path */
function makeIcon(path) {
  const icon = makeSvg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" });
  icon.append(makeSvg("path", { d: path }));
  return icon;
}

/**
 * Follow a pointer pressed on an element, as a share of its width.
 * @param {HTMLElement} element
 * @param {(share: number) => void} listener
 * @param {AbortSignal} signal
 */
function onScrub(element, listener, signal) {
  const tell = (/** @type {PointerEvent} */ event) => {
    const box = element.getBoundingClientRect();
    listener(clamp((event.clientX - box.left) / box.width, 0, 1));
  };
  element.addEventListener(
    "pointerdown",
    (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      element.setPointerCapture(event.pointerId);
      focusSlider(element.closest(".ldm-explorer"));
      tell(event);
    },
    { signal },
  );
  element.addEventListener("pointermove", (event) => { if (element.hasPointerCapture(event.pointerId)) tell(event); }, { signal });
}

/**
 * Thumbnails under the slider, each below its place on the track.
 * @param {Context} context
 * @param {Pictures} pictures
 * @param {number} aspect
 */
function makeFilmstrip({ header, signal, move }, pictures, aspect) {
  const rows = ["latents", "x0"].filter((name) => header.frames[name]);
  const last = header.steps - 1;
  if (!rows.length || last < 0) return { element: null, draw() {} };
  const canvas = make("canvas");
  const marker = make("i");
  const element = make("div", { class: "ldm-film", "aria-hidden": "true" }, canvas, marker);
  let drawn = "";
  let count = 0;
  /** @type {Set<string>} */
  const done = new Set();
  onScrub(element, (share) => move(count > 1 ? ((share * count - 0.5) / (count - 1)) * last : 0), signal);
  return {
    element,
    /** @param {{sample: number, step: number}} state */
    draw({ sample, step }) {
      const width = element.clientWidth;
      if (!width) return;
      const room = Math.max(1, Math.floor(width / 30));
      count = Math.min(header.steps, room);
      const cell = width / count;
      const tall = Math.min(cell / aspect, 64);
      const root = element.closest(".ldm-explorer");
      canvas.style.height = `${Math.round(tall * rows.length)}px`;
      const pen = fitCanvas(canvas);
      const thumb = Math.min(tall * aspect, cell);
      if (root instanceof HTMLElement) root.style.setProperty("--cell", `${cell}px`);
      element.style.setProperty("--thumb", `${thumb}px`);
      marker.style.left = `${cell / 2 + (last ? step / last : 0) * (width - cell)}px`;
      if (!pen) return;
      const key = `${canvas.width}/${canvas.height}/${sample}/${devicePixelRatio}`;
      if (key !== drawn) {
        pen.clearRect(0, 0, canvas.width, canvas.height);
        drawn = key;
        done.clear();
      }
      const ratio = canvas.width / width;
      pen.imageSmoothingQuality = "high";
      rows.forEach((name, row) => {
        for (let i = 0; i < count; i++) {
          const at = count > 1 ? Math.round((i * last) / (count - 1)) : 0;
          const bitmap = pictures.get(name, sample, at);
          if (!bitmap || done.has(`${row}/${i}`)) continue;
          done.add(`${row}/${i}`);
          const left = (cell * (i + 0.5) - thumb / 2) * ratio;
          pen.drawImage(bitmap, left + 0.5 * ratio, (row * tall + 0.5) * ratio, (thumb - 1) * ratio, (tall - 1) * ratio);
        }
      });
    },
  };
}

/** @param {Context} context */
function makeCharts(context) {
  const { model, header } = context;
  const bytes = toBytes(model.get("_charts"));
  const numbers = new Float32Array(bytes.slice().buffer);
  /** @type {ReturnType<typeof makeChart>[]} */
  const charts = [];
  let start = 0;
  for (const chart of header.charts) {
    charts.push(makeChart(context, chart, numbers, start));
    start += header.batch * chart.series.length * chart.points;
  }
  const element = make("div", { class: "ldm-charts" });
  element.append(...charts.map((chart) => chart.element));
  return {
    element: charts.length ? element : null,
    /** @param {{step: number, sample: number}} state */
    draw(state) {
      for (const chart of charts) chart.draw(state);
    },
  };
}

/**
 * One small chart: curves over the steps, a cursor on the current one, values on hover.
 * @param {Context} context
 * @param {ChartHeader} chart
 * @param {Float32Array} numbers
 * @param {number} start where this chart's values begin
 */
function makeChart({ model, header, signal, move }, chart, numbers, start) {
  const { series, points, kind, log } = chart;
  const most = Math.max(points - 1, 1);
  const readout = make("span", { class: "ldm-readout" });
  const drawing = makeSvg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  const cursor = make("i", { class: "ldm-cursor" });
  const dots = series.map(() => make("i", { class: "ldm-dot" }));
  const labels = make("div", { class: "ldm-ticks", "aria-hidden": "true" });
  const plot = make("div", { class: "ldm-plot" });
  plot.append(labels, drawing, cursor, ...(kind === "channels" && series.length > 8 ? [] : dots));
  const where = make("em");
  const heading = make("h3", {}, chart.title, where);
  if (chart.hint) heading.title = chart.hint;
  const element = make("figure", { class: "ldm-chart" }, heading, readout, plot);
  const colour = (/** @type {number} */ i) =>
    kind === "channels" && series.length > 1 ? channelColour(i, series.length) : "var(--ldm-accent)";

  let low = 0;
  let high = 1;
  let drawn = "";
  let sample = 0;
  let step = 0;
  let hover = -1;
  /** @param {number} i @param {number} at */
  const value = (i, at) => numbers[start + (sample * series.length + i) * points + at];
  /** As many decimals as the chart's span needs, so that digits stay in place while the cursor moves. */
  const figure = (/** @type {number} */ number) => {
    const decimals = Math.ceil(1.3 - Math.log10(high - low));
    if (Number.isNaN(number)) return "–";
    if (log || !Number.isFinite(number) || decimals > 5) return formatFigure(number);
    const text = Math.abs(number).toFixed(Math.max(decimals, 0));
    return number < 0 && Number(text) ? `−${text}` : text;
  };
  /** @param {number} number */
  const height = (number) => {
    const shown = log ? Math.log10(number) : number;
    return 100 - ((shown - low) / (high - low)) * 100;
  };

  function build() {
    low = Infinity;
    high = -Infinity;
    for (let i = 0; i < series.length; i++) {
      for (let at = 0; at < points; at++) {
        const number = log ? Math.log10(value(i, at)) : value(i, at);
        if (!Number.isFinite(number)) continue;
        low = Math.min(low, number);
        high = Math.max(high, number);
      }
    }
    if (low > high) [low, high] = [0, 1];
    const margin = (high - low) * 0.08 || Math.abs(high) * 0.05 || 0.5;
    low -= margin;
    high += margin;
    const marks = (log ? powerTicks(low, high) : ticks(low, high, 3)).filter((tick) => tick > low && tick < high);
    const lines = marks.map((tick) => {
      const y = 100 - ((tick - low) / (high - low)) * 100;
      return makeSvg("path", { class: tick === 0 && !log ? "ldm-zero" : "ldm-grid", d: `M0 ${y}H100` });
    });
    labels.replaceChildren(
      ...marks.map((tick) => {
        const power = log && marks.every(Number.isInteger);
        const label = make("span", {}, power ? formatPower(tick) : formatTick(log ? 10 ** tick : tick));
        label.style.top = `${100 - ((tick - low) / (high - low)) * 100}%`;
        return label;
      }),
    );
    /** @type {SVGElement[]} */
    const shapes = [];
    if (kind === "band") {
      const ends = [];
      for (let at = 0; at < points; at++) if (Number.isFinite(value(0, at))) ends.push(at);
      const path = [...ends.map((at) => [at, 1]), ...ends.reverse().map((at) => [at, 0])]
        .map(([at, i], k) => `${k ? "L" : "M"}${(at / most) * 100} ${height(value(i, at))}`)
        .join("");
      shapes.push(makeSvg("path", { class: "ldm-band", d: path }));
    }
    const chosen = model.get("channel");
    series.forEach((_, i) => {
      const shape = makeSvg("path", { class: "ldm-line", d: curve(i) });
      shape.style.stroke = colour(i);
      if (kind === "channels" && series.length > 1) {
        shape.classList.add(chosen === i ? "ldm-chosen" : "ldm-other");
        dots[i].style.background = colour(i);
      }
      shapes.push(shape);
    });
    drawing.replaceChildren(...lines, ...shapes);
  }

  /** @param {number} i */
  function curve(i) {
    let path = "";
    let pen = "M";
    for (let at = 0; at < points; at++) {
      const y = height(value(i, at));
      if (!Number.isFinite(y)) {
        pen = "M";
        continue;
      }
      path += `${pen}${((at / most) * 100).toFixed(2)} ${y.toFixed(2)}`;
      pen = "L";
    }
    return path;
  }

  function point() {
    const at = clamp(hover < 0 ? step : hover, 0, points - 1);
    cursor.style.left = `${(at / most) * 100}%`;
    cursor.classList.toggle("ldm-hovering", hover >= 0);
    dots.forEach((dot, i) => {
      const y = height(value(i, at));
      dot.hidden = !Number.isFinite(y);
      dot.style.left = `${(at / most) * 100}%`;
      dot.style.top = `${y}%`;
    });
    where.textContent = hover < 0 ? "" : hover >= header.steps ? "end" : `step ${hover}`;
    if (kind === "channels" && series.length > 6) {
      const all = series.map((_, i) => value(i, at));
      const text = `${figure(Math.min(...all))} … ${figure(Math.max(...all))}`;
      readout.replaceChildren(make("b", {}, text));
      return;
    }
    readout.replaceChildren(
      ...series.map((name, i) => {
        if (kind !== "channels" || series.length < 2) return make("b", {}, figure(value(i, at)));
        const item = make("b", { class: "ldm-swatch", title: `channel ${name}` }, make("i", {}, name), figure(value(i, at)));
        item.style.setProperty("--ldm-swatch", colour(i));
        return item;
      }),
    );
  }

  onScrub(plot, (share) => move(share * most), signal);
  plot.addEventListener(
    "pointermove",
    (event) => {
      const box = plot.getBoundingClientRect();
      hover = event.buttons ? -1 : clamp(Math.round(((event.clientX - box.left) / box.width) * most), 0, points - 1);
      point();
    },
    { signal },
  );
  plot.addEventListener("pointerleave", () => { hover = -1; point(); }, { signal });

  return {
    element,
    /** @param {{step: number, sample: number}} state */
    draw(state) {
      ({ sample, step } = state);
      const key = `${sample}/${model.get("channel")}`;
      if (key !== drawn) {
        drawn = key;
        build();
      }
      point();
    },
  };
}

/** @param {number} power */
function formatPower(power) {
  const digits = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  if (power === 0) return "1";
  return `10${power < 0 ? "⁻" : ""}${[...String(Math.abs(power))].map((d) => digits[Number(d)]).join("")}`;
}

/** @param {number} value */
function formatTick(value) {
  return String(Number(value.toPrecision(6))).replace("-", "−");
}

/** @param {Header} header */
function makeFooter(header) {
  const list = make("dl");
  for (const [name, value] of header.settings) list.append(make("dt", {}, name), make("dd", {}, value || "“”"));
  const keys = make("p", { class: "ldm-keys" }, make("kbd", {}, "←"), make("kbd", {}, "→"), " step ", make("kbd", {}, "Home"), make("kbd", {}, "End"), " ends ", make("kbd", {}, "space"), " plays");
  const element = make("footer", { class: "ldm-footer" });
  if (header.settings.length) element.append(make("details", {}, make("summary", {}, "Settings of this run"), list));
  element.append(keys);
  return element;
}

export const explorer = { initialize, render };
export default explorer;
