// @ts-check
// What all views share. Python puts this text in front of a view's own, so names here are global to both.

/**
 * The part of a widget's model that views use.
 * @typedef {{
 *   get(name: string): any,
 *   set(name: string, value: any): void,
 *   save_changes(): void,
 *   on(event: string, listener: () => void): void,
 *   off(event: string, listener: () => void): void,
 * }} Model
 */

const CONTROLS = ["button", "input", "select", "summary", "textarea"];

/**
 * Make an element. Text is only ever set as text, so no data can become markup. On what can have the focus a notebook's
 * own keys have no effect: an x on a button would cut the cell.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string | number | boolean>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false) element.setAttribute(name, String(value));
  }
  if (CONTROLS.includes(tag) || "tabindex" in attributes) element.setAttribute("data-lm-suppress-shortcuts", "");
  element.append(...children);
  return element;
}

/**
 * Change an element's text where it is another, so that the same text costs no layout.
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.firstChild instanceof Text && element.childNodes.length === 1) {
    if (element.firstChild.data !== text) element.firstChild.data = text;
  } else if (element.textContent !== text) {
    element.textContent = text;
  }
}

/**
 * The outermost element of a view. Escape in it gives the focus back to the notebook.
 * @param {string} names class names
 * @param {AbortSignal} signal
 */
export function makeRoot(names, signal) {
  const root = make("div", { class: `ldm-view ${names}` });
  root.addEventListener("keydown", ({ key, target }) => {
    const notebook = root.closest(".jp-Notebook");
    if (key === "Escape" && notebook instanceof HTMLElement && target instanceof HTMLElement) notebook.focus();
  }, { signal });
  return root;
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @returns {SVGElement}
 */
export function makeSvg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}

/**
 * Listen to a model until the signal aborts.
 * @param {Model} model
 * @param {string[]} names
 * @param {() => void} listener
 * @param {AbortSignal} signal
 */
export function watch(model, names, listener, signal) {
  for (const name of names) model.on(`change:${name}`, listener);
  signal.addEventListener(
    "abort",
    () => names.forEach((name) => model.off(`change:${name}`, listener)),
    { once: true },
  );
}

/**
 * Bytes of a trait, whatever the host hands over.
 * @param {DataView | Uint8Array | ArrayBuffer | null | undefined} value
 * @returns {Uint8Array}
 */
export function toBytes(value) {
  if (!value) return new Uint8Array(0);
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
}

/** @param {number} value @param {number} low @param {number} high */
export function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/**
 * Three significant figures with a true minus sign, as Python's side writes them.
 * @param {number} value
 * @returns {string}
 */
export function formatFigure(value) {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text =
    size < 1e-3 || size >= 1e5
      ? size.toExponential(1).replace("e+", "e")
      : size.toFixed(Math.max(0, 2 - Math.floor(Math.log10(size))));
  return value < 0 ? `−${text}` : text;
}

/**
 * A value that is known within an uncertainty: three figures where those are certain, else as many as there are.
 * @param {number} value
 * @param {number} uncertainty
 * @returns {string}
 */
export function formatMeasured(value, uncertainty) {
  if (!Number.isFinite(value) || !(uncertainty > 0) || !Number.isFinite(uncertainty)) return formatFigure(value);
  if (uncertainty <= Math.abs(value) / 1000) return formatFigure(value);
  const decimals = Math.max(0, Math.ceil(-Math.log10(uncertainty)));
  if (decimals > 6) return formatFigure(value);
  const text = Math.abs(value).toFixed(decimals);
  return `${value < 0 && Number(text) ? "−" : ""}${text} ± ${uncertainty.toPrecision(1)}`;
}

/**
 * Round numbers between two ends, ends not included unless round.
 * @param {number} low
 * @param {number} high
 * @param {number} count about how many
 * @returns {number[]}
 */
export function ticks(low, high, count) {
  const span = high - low;
  if (!(span > 0) || !Number.isFinite(span)) return Number.isFinite(low) ? [low] : [];
  const raw = span / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const factor = raw / power;
  const step = (factor < 1.5 ? 1 : factor < 3.5 ? 2 : factor < 7.5 ? 5 : 10) * power;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) {
    found.push(k === 0 ? 0 : Number((k * step).toPrecision(12)));
  }
  return found;
}

/**
 * Ticks of a logarithmic axis: powers of ten, or 1, 2 and 5 times them where fewer than two powers are in sight.
 * @param {number} low decimal logarithm
 * @param {number} high decimal logarithm
 */
export function powerTicks(low, high) {
  const powers = ticks(low, high, 3).filter((tick) => Number.isInteger(tick) && tick > low && tick < high);
  if (powers.length > 1) return powers;
  const between = [];
  for (let power = Math.floor(low); power <= high; power++) {
    for (const digit of [1, 2, 5]) between.push(power + Math.log10(digit));
  }
  const seen = between.filter((tick) => tick > low && tick < high);
  return seen.length > 1 ? seen : ticks(10 ** low, 10 ** high, 3).filter((tick) => tick > 0).map(Math.log10);
}

/**
 * The value below which a share of the finite magnitudes lies.
 * @param {ArrayLike<number>} values
 * @param {number} share 0 to 1
 * @returns {number} 0 where no value is finite
 */
export function magnitude(values, share) {
  const sizes = new Float32Array(values.length);
  let count = 0;
  for (let i = 0; i < values.length; i++) {
    if (Number.isFinite(values[i])) sizes[count++] = Math.abs(values[i]);
  }
  if (!count) return 0;
  const sorted = sizes.subarray(0, count).sort();
  return sorted[Math.min(count - 1, Math.ceil(share * (count - 1)))];
}

/**
 * Interpolate evenly spaced `#rrggbb` stops into 256 packed pixels.
 * @param {string[]} stops
 * @returns {Uint32Array} alpha, blue, green, red from the highest byte on
 */
export function colourTable(stops) {
  const table = new Uint32Array(256);
  const colours = stops.map((stop) => [1, 3, 5].map((i) => parseInt(stop.slice(i, i + 2), 16)));
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (colours.length - 1);
    const k = Math.min(Math.floor(at), colours.length - 2);
    const [r, g, b] = colours[k].map((from, c) => Math.round(from + (colours[k + 1][c] - from) * (at - k)));
    table[i] = ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  }
  return table;
}

/** Pixel of what is not a finite number: in no colour table. */
export const BAD_PIXEL = 0xff9f24d6;

/**
 * Paint values as pixels.
 * @param {Float32Array} values
 * @param {number} limit magnitude of the strongest colour
 * @param {boolean} signed whether the table's middle is zero
 * @param {Uint32Array} table
 * @param {Uint32Array} pixels written
 */
export function paint(values, limit, signed, table, pixels) {
  const factor = limit > 0 ? (signed ? 127.5 : 255) / limit : 0;
  const offset = signed ? 127.5 : 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    pixels[i] = Number.isFinite(value) ? table[clamp(Math.round(value * factor + offset), 0, 255)] : BAD_PIXEL;
  }
}

/**
 * Turn codes back into values; see `pack_maps` in Python.
 * @param {Uint8Array | Uint16Array} codes
 * @param {number} start
 * @param {number} bits
 * @param {number} scale
 * @param {Float32Array} values written; its length is how many are read
 */
export function decodeValues(codes, start, bits, scale, values) {
  const half = 2 ** (bits - 1);
  const factor = scale / (half - 3);
  for (let i = 0; i < values.length; i++) {
    const code = codes[start + i];
    values[i] =
      code > 1 && code < 2 * half - 1
        ? (code - half) * factor
        : code === 0
          ? NaN
          : code === 1
            ? -Infinity
            : Infinity;
  }
}

/**
 * Where the host stands: whether its text is light on dark.
 * @param {Element} element
 */
export function isDark(element) {
  const numbers = getComputedStyle(element).color.match(/[\d.]+/g)?.map(Number) ?? [0, 0, 0];
  const [r, g, b] = getComputedStyle(element).color.startsWith("color(") ? numbers.map((v) => v * 255) : numbers;
  return 0.299 * r + 0.587 * g + 0.114 * b > 127;
}

/**
 * Call back when the host changes between light and dark.
 * @param {() => void} listener
 * @param {AbortSignal} signal
 */
export function watchTheme(listener, signal) {
  const observer = new MutationObserver(listener);
  const options = { attributes: true, attributeFilter: ["class", "style", "data-jp-theme-name", "data-jp-theme-light", "theme"] };
  observer.observe(document.body, options);
  observer.observe(document.documentElement, options);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", listener, { signal });
}
