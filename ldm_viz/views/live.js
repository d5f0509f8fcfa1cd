import { clamp, formatFigure, isDark, make, makeRoot, makeSvg, ticks, toBytes, watch, watchTheme } from "./core.js";
// A run while it goes on: progress, a coarse preview, the pictures so far, the latents' spread, and how it ended.

/** @typedef {import("./core.js").Model} Model */
/**
 * @typedef {{width: number, height: number, rgb: DataView}} Picture
 * @typedef {{done: number, steps: number | null, words: string[], elapsed: number, remaining: number | null,
 *   channels: number, curve: DataView, picture?: Picture}} News
 * @typedef {{status: string, text: string, why: string, details: string, notes: string[]}} End
 * @typedef {{done: number, canvas: HTMLCanvasElement}} Thumbnail
 */

const LIVE_COLOURS = ["#2f7fd1", "#d9701f", "#2a9d6a", "#b0569e", "#8a7a1e", "#c2455a", "#17939e", "#7a67c9"];
const THUMBNAIL = 64; // pixels of its longer side that are kept, at most
const MOST_THUMBNAILS = 400;
const THUMBNAIL_WIDTH = 52; // CSS pixels, about; of more than fit, some are left out

/** @param {number} index @param {number} count */
const lineColour = (index, count) =>
  count <= LIVE_COLOURS.length ? LIVE_COLOURS[index] : `hsl(${Math.round((index * 360) / count)} 60% 52%)`;

/** @param {number} seconds */
function formatTime(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** @param {Model} model @returns {News | null} */
const newsOf = (model) => (model.get("_news")?.curve ? model.get("_news") : null);

/**
 * Pixels as a canvas, no larger than a side.
 * @param {Picture} picture
 * @param {number} side
 */
function paintPicture({ width, height, rgb }, side) {
  const bytes = toBytes(rgb);
  const whole = make("canvas", { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = bytes[3 * i + c];
    image.data[4 * i + 3] = 255;
  }
  whole.getContext("2d")?.putImageData(image, 0, 0);
  const scale = side / Math.max(width, height);
  if (scale >= 1) return whole;
  const small = make("canvas", { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) });
  small.getContext("2d")?.drawImage(whole, 0, 0, small.width, small.height);
  return small;
}

/**
 * Draw a small picture large without edges between its pixels: browsers' own enlarging shows them.
 * @param {HTMLCanvasElement} source
 * @param {HTMLCanvasElement} target its size is fitted to its box
 */
function enlarge(source, target) {
  const pen = fitCanvas(target);
  if (!pen) return;
  let from = source;
  while (2 * from.width <= target.width) {
    const twice = make("canvas", { width: 2 * from.width, height: 2 * from.height });
    const ink = twice.getContext("2d");
    if (!ink) break;
    ink.imageSmoothingQuality = "high";
    ink.drawImage(from, 0, 0, twice.width, twice.height);
    from = twice;
  }
  pen.imageSmoothingQuality = "high";
  pen.drawImage(from, 0, 0, target.width, target.height);
}

/**
 * What a widget is, once a model: its views share the thumbnails, which come one by one and are nowhere else.
 */
export function live() {
  /** @type {Thumbnail[]} */
  const thumbnails = [];
  return {
    /** @param {{model: Model, signal: AbortSignal}} host */
    initialize({ model, signal }) {
      const keep = () => {
        const news = newsOf(model);
        if (!news?.picture) return;
        if (thumbnails.length && thumbnails[thumbnails.length - 1].done >= news.done) thumbnails.length = 0;
        thumbnails.push({ done: news.done, canvas: paintPicture(news.picture, THUMBNAIL) });
        if (thumbnails.length > MOST_THUMBNAILS) {
          const fewer = thumbnails.filter((_, i) => i % 2 === 0);
          thumbnails.splice(0, thumbnails.length, ...fewer);
        }
      };
      watch(model, ["_news"], keep, signal);
      keep();
    },
    /** @param {{model: Model, el: HTMLElement, signal: AbortSignal}} host */
    render(host) {
      renderLive(host, thumbnails);
    },
  };
}

/**
 * @param {{model: Model, el: HTMLElement, signal: AbortSignal}} host
 * @param {Thumbnail[]} thumbnails
 */
function renderLive({ model, el, signal }, thumbnails) {
  const root = makeRoot("ldm-live", signal);
  let arrived = 0; // when the last news came; 0 until some do
  const clock = () => (arrived && model.get("_phase") === "running" ? (performance.now() - arrived) / 1000 : 0);
  const heading = makeHead(model, signal);
  const progress = makeProgress(model, clock);
  const preview = makePreview(model);
  const spread = makeSpread(model);
  const strip = makeThumbnails(thumbnails);
  const end = makeEnd(model);
  const body = make("div", { class: "ldm-live-body" }, preview.element, spread.element);
  const parts = [heading, progress, preview, spread, strip, end];
  root.append(end.element, heading.element, progress.element, body, strip.element);

  let frame = 0;
  const draw = () => {
    frame = 0;
    const phase = model.get("_phase");
    root.dataset.phase = phase;
    root.dataset.done = String(newsOf(model)?.done ?? 0);
    const ended = phase === "ended";
    for (const part of [heading.element, progress.element]) part.hidden = ended;
    body.hidden = ended || !newsOf(model);
    for (const part of parts) part.draw();
    strip.element.hidden = ended || thumbnails.length < 2;
    if (!strip.element.hidden) strip.draw();
  };
  const schedule = () => {
    if (!frame && !signal.aborted) frame = requestAnimationFrame(draw);
  };
  const themed = () => {
    root.style.colorScheme = "";
    root.dataset.theme = isDark(root) ? "dark" : "light";
    root.style.colorScheme = root.dataset.theme;
  };
  watch(model, ["_news"], () => { arrived = performance.now(); }, signal);
  watch(model, ["_news", "_phase", "_end", "_stop_asked", "_stopping"], schedule, signal);
  watchTheme(themed, signal);
  const observer = new ResizeObserver(schedule);
  observer.observe(root);
  const ticking = setInterval(() => progress.tick(), 1000);
  signal.addEventListener(
    "abort",
    () => {
      clearInterval(ticking);
      observer.disconnect();
      cancelAnimationFrame(frame);
      root.remove();
    },
    { once: true },
  );
  el.append(root);
  themed();
  schedule();
}

/**
 * Fit a canvas to its box in device pixels.
 * @param {HTMLCanvasElement} canvas
 * @returns {CanvasRenderingContext2D | null} null while it has no size
 */
function fitCanvas(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * ratio);
  const height = Math.round(canvas.clientHeight * ratio);
  if (!width || !height) return null;
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  return canvas.getContext("2d");
}

/**
 * What is being made, and the button that stops it.
 * @param {Model} model
 * @param {AbortSignal} signal
 */
function makeHead(model, signal) {
  const { prompt, facts } = model.get("_about");
  const stop = make("button", { type: "button", class: "ldm-stop" }, "Stop");
  stop.addEventListener(
    "click",
    () => {
      if (model.get("_stop_asked") || model.get("_stopping")) return;
      model.set("_stop_asked", true);
      model.save_changes();
    },
    { signal },
  );
  const title = make("p", { class: "ldm-live-prompt", tabindex: -1 }, prompt || "A run");
  const about = make("p", { class: "ldm-live-facts" }, facts.join(" · "));
  const element = make("header", { class: "ldm-live-head" }, title, stop, about);
  return {
    element,
    draw() {
      const stopping = Boolean(model.get("_stopping"));
      const asked = stopping || Boolean(model.get("_stop_asked"));
      // Not `disabled`, which would take the focus away from those who pressed it by key.
      stop.setAttribute("aria-disabled", String(asked));
      stop.textContent = stopping ? "Stopping after this step…" : asked ? "Asking to stop…" : "Stop";
      const ended = Boolean(model.get("_end")?.text);
      // Whoever pressed it by key goes on from here.
      if (ended && document.activeElement === stop) title.focus();
      stop.hidden = ended;
    },
  };
}

/**
 * How far it is, in a bar and in words.
 * @param {Model} model
 * @param {() => number} clock seconds since the last news
 */
function makeProgress(model, clock) {
  const fill = make("i");
  const bar = make("div", { class: "ldm-progress", role: "progressbar", "aria-label": "Progress of the run" }, fill);
  const words = make("p", { class: "ldm-words" });
  const time = make("p", { class: "ldm-live-time" });
  const said = make("p", { class: "ldm-unseen", "aria-live": "polite" });
  const element = make("div", {}, bar, make("div", { class: "ldm-live-where" }, words, time), said);

  /** @param {string} text */
  const say = (text) => {
    if (said.textContent !== text) said.textContent = text;
  };

  /** @param {number | null} done @param {number | null} count @param {string} text */
  const fillTo = (done, count, text) => {
    const known = done !== null && Boolean(count);
    bar.dataset.known = String(known);
    fill.style.width = known ? `${(100 * Number(done)) / Number(count)}%` : "";
    for (const [name, value] of Object.entries({ valuemin: 0, valuemax: count, valuenow: done })) {
      if (known) bar.setAttribute(`aria-${name}`, String(value));
      else bar.removeAttribute(`aria-${name}`);
    }
    bar.setAttribute("aria-valuetext", text);
  };

  function tick() {
    const news = newsOf(model);
    const since = clock();
    if (!news || model.get("_phase") !== "running" || model.get("_end")?.text) {
      time.textContent = "";
      return;
    }
    const parts = [formatTime(news.elapsed + since)];
    if (news.remaining) parts.push(`about ${formatTime(Math.max(news.remaining - since, 1))} left`);
    time.textContent = parts.join(" · ");
  }

  return {
    element,
    tick,
    draw() {
      const news = newsOf(model);
      const phase = model.get("_phase");
      let texts = ["Preparing"];
      if (news) texts = [news.steps ? `${news.done} of ${news.steps} steps` : `${news.done} steps`, ...news.words];
      else if (phase === "running") texts = ["Before the first step"];
      const [first, ...rest] = texts;
      words.replaceChildren(make("strong", {}, first), ...rest.map((text) => make("span", {}, text)));
      fillTo(news ? news.done : null, news ? news.steps : null, texts.join(", "));
      // A listener hears of the quarters, not of every step.
      if (news?.steps) say(`${25 * Math.floor((4 * news.done) / news.steps)} % of the steps are done`);
      tick();
    },
  };
}

/**
 * The picture that the step expects to end with.
 * @param {Model} model
 */
function makePreview(model) {
  const canvas = make("canvas", { role: "img" });
  const box = make("div", { class: "ldm-box" }, canvas);
  const name = make("span", { class: "ldm-symbol" }, "x", make("sub", {}, "0"));
  const title = make("div", { class: "ldm-title" }, make("h3", {}, name, " predicted clean picture"));
  const caption = make("p", { class: "ldm-caption" }, "Coarse colours by a linear map.");
  const element = make("figure", { class: "ldm-panel ldm-live-preview" }, title, box, caption);
  /** @type {DataView | null} */
  let seen = null;
  let source = make("canvas");
  let drawn = "";
  return {
    element,
    draw() {
      const news = newsOf(model);
      element.hidden = !news?.picture;
      if (!news?.picture) return;
      const { width, height, rgb } = news.picture;
      box.style.setProperty("--aspect", String(clamp(width / height, 0.25, 4)));
      canvas.setAttribute("aria-label", `Predicted clean picture after ${news.done} steps`);
      const size = `${canvas.clientWidth}/${canvas.clientHeight}/${devicePixelRatio}`;
      if (seen === rgb && size === drawn) return;
      if (seen !== rgb) source = paintPicture(news.picture, Math.max(width, height));
      seen = rgb;
      drawn = size;
      enlarge(source, canvas);
      canvas.dataset.done = String(news.done);
    },
  };
}

/**
 * The pictures so far in a row.
 * @param {Thumbnail[]} thumbnails
 */
function makeThumbnails(thumbnails) {
  const canvas = make("canvas", { role: "img" });
  const element = make("div", { class: "ldm-live-strip" }, canvas);
  return {
    element,
    draw() {
      const width = element.clientWidth;
      if (!width || !thumbnails.length) return;
      const room = Math.max(2, Math.floor(width / THUMBNAIL_WIDTH));
      const count = Math.min(room, thumbnails.length);
      const { width: w, height: h } = thumbnails[0].canvas;
      const cell = width / room;
      const tall = Math.min((cell * h) / w, 1.5 * THUMBNAIL_WIDTH);
      canvas.style.height = `${Math.round(tall)}px`;
      const pen = fitCanvas(canvas);
      if (!pen) return;
      const ratio = canvas.width / canvas.clientWidth;
      pen.clearRect(0, 0, canvas.width, canvas.height);
      pen.imageSmoothingQuality = "high";
      const wide = Math.min((tall * w) / h, cell);
      for (let i = 0; i < count; i++) {
        const at = count > 1 ? Math.round((i * (thumbnails.length - 1)) / (count - 1)) : 0;
        pen.drawImage(thumbnails[at].canvas, i * cell * ratio, 0, (wide - 2) * ratio, tall * ratio);
      }
      const last = thumbnails[thumbnails.length - 1].done;
      canvas.setAttribute("aria-label", `Predicted clean pictures from step ${thumbnails[0].done} to ${last}`);
      canvas.dataset.count = String(count);
    },
  };
}

/**
 * Standard deviation of the latents over the steps so far.
 * @param {Model} model
 */
function makeSpread(model) {
  const readout = make("span", { class: "ldm-readout" });
  const drawing = makeSvg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  const labels = make("div", { class: "ldm-ticks", "aria-hidden": "true" });
  const plot = make("div", { class: "ldm-plot" }, labels, drawing);
  const ends = [make("span", {}, "0"), make("span")];
  const axis = make("div", { class: "ldm-ends", "aria-hidden": "true" }, ...ends);
  const element = make("figure", { class: "ldm-chart ldm-live-spread" }, make("h3", {}, "Latents: std"), readout, plot, axis);
  /** @type {DataView | null} */
  let seen = null;
  return {
    element,
    draw() {
      const news = newsOf(model);
      if (!news || news.curve === seen) return;
      seen = news.curve;
      const numbers = new Float32Array(toBytes(news.curve).slice().buffer);
      const { channels, steps } = news;
      const stride = channels + 1;
      const count = numbers.length / stride;
      const most = Math.max(steps ?? news.done, 1);
      let low = Infinity;
      let high = -Infinity;
      numbers.forEach((number, i) => {
        if (i % stride === 0 || !Number.isFinite(number)) return;
        low = Math.min(low, number);
        high = Math.max(high, number);
      });
      if (low > high) [low, high] = [0, 1];
      const margin = (high - low) * 0.08 || Math.abs(high) * 0.05 || 0.5;
      low -= margin;
      high += margin;
      /** @param {number} value */
      const heightOf = (value) => 100 - ((value - low) / (high - low)) * 100;
      const marks = ticks(low, high, 4).filter((tick) => tick > low && tick < high);
      const shapes = marks.map((tick) => makeSvg("path", { class: "ldm-grid", d: `M0 ${heightOf(tick)}H100` }));
      plot.querySelectorAll(".ldm-dot").forEach((dot) => dot.remove());
      labels.replaceChildren(
        ...marks.map((tick) => {
          const label = make("span", {}, String(Number(tick.toPrecision(6))).replace("-", "−"));
          label.style.top = `${heightOf(tick)}%`;
          return label;
        }),
      );
      for (let c = 0; c < channels; c++) {
        let path = "";
        let pen = "M";
        for (let i = 0; i < count; i++) {
          const y = heightOf(numbers[i * stride + 1 + c]);
          if (Number.isFinite(y)) path += `${pen}${((100 * numbers[i * stride]) / most).toFixed(2)} ${y.toFixed(2)}`;
          pen = Number.isFinite(y) ? "L" : "M";
        }
        const colour = channels > 1 ? lineColour(c, channels) : "var(--ldm-accent)";
        const line = makeSvg("path", { class: "ldm-line", d: path });
        line.style.stroke = colour;
        shapes.push(line);
        const y = heightOf(numbers[(count - 1) * stride + 1 + c]);
        if (channels > LIVE_COLOURS.length || !Number.isFinite(y)) continue;
        const dot = make("i", { class: "ldm-dot" });
        Object.assign(dot.style, { left: `${(100 * news.done) / most}%`, top: `${y}%`, background: colour });
        plot.append(dot);
      }
      drawing.replaceChildren(...shapes);
      ends[1].textContent = steps ? `${steps} steps` : `${news.done} steps`;
      const latest = [...numbers.subarray((count - 1) * stride + 1)];
      if (channels > LIVE_COLOURS.length) {
        const text = `${formatFigure(Math.min(...latest))} … ${formatFigure(Math.max(...latest))}`;
        readout.replaceChildren(make("b", {}, text));
        return;
      }
      readout.replaceChildren(
        ...latest.map((value, c) => {
          if (channels < 2) return make("b", {}, formatFigure(value));
          const item = make("b", { class: "ldm-swatch", title: `channel ${c}` }, make("i", {}, String(c)), formatFigure(value));
          item.style.setProperty("--ldm-swatch", lineColour(c, channels));
          return item;
        }),
      );
    },
  };
}

/**
 * How it ended: a line, and of a failure what was raised.
 * @param {Model} model
 */
function makeEnd(model) {
  const text = make("strong");
  const why = make("span");
  const line = make("p", { role: "status" }, text, " ", why);
  const notes = make("div");
  const trace = make("pre");
  const details = make("details", {}, make("summary", {}, "Traceback"), trace);
  const element = make("div", { class: "ldm-live-end" }, line, notes, details);
  return {
    element,
    draw() {
      /** @type {Partial<End>} */
      const end = model.get("_end") ?? {};
      element.hidden = !end.text;
      element.dataset.status = end.status ?? "";
      if (text.textContent === (end.text ?? "")) return;
      text.textContent = end.text ?? "";
      why.textContent = end.why ?? "";
      notes.replaceChildren(...(end.notes ?? []).map((note) => make("p", { class: "ldm-live-note" }, note)));
      trace.textContent = end.details ?? "";
      details.hidden = !end.details;
    },
  };
}

export default live;
