import { make, makeSvg } from "./core.js";
import { onScrub } from "./panels.js";
// Thumbnails of all steps in a row, each below its place on the slider's track.

/** @typedef {import("./panels.js").Context} Context */
/** @typedef {import("./panels.js").Shown} Shown */

const NARROWEST = 30; // CSS pixels of a thumbnail: with more steps than fit, some are left out
const TALLEST = 64;

/**
 * @param {Context} context
 * @param {string[]} rows series, from top to bottom
 * @param {number} aspect
 * @param {number} [tallest] CSS pixels of a row
 */
export function makeStrip({ header, signal, move, root, surfaces, pictures }, rows, aspect, tallest = TALLEST) {
  const last = header.steps - 1;
  const canvas = surfaces.add(make("canvas"));
  // In a drawing: an element that moves in the page costs the browser a layout, and a layer that moves a sorting.
  const drawing = makeSvg("svg", {});
  const marker = ["ldm-ring", "ldm-mark"].map((name) => makeSvg("rect", { class: name, y: 1, rx: 3 }));
  drawing.append(...marker);
  const element = surfaces.add(make("div", { class: "ldm-film", "data-panel": "filmstrip", "aria-hidden": "true" }, canvas, drawing));
  let drawn = "";
  let count = 0;
  /** @type {Map<string, string>} place to the version that is drawn there */
  const done = new Map();
  onScrub(element, (share) => move(count > 1 ? ((share * count - 0.5) / (count - 1)) * last : 0), signal);

  /** @param {number} width */
  function arrange(width) {
    count = Math.min(header.steps, Math.max(1, Math.floor(width / NARROWEST)));
    const cell = width / count;
    const tall = Math.min(cell / aspect, tallest);
    const thumb = Math.min(tall * aspect, cell);
    canvas.style.height = `${Math.round(tall * rows.length)}px`;
    root.style.setProperty("--cell", `${cell}px`);
    for (const rect of marker) {
      rect.setAttribute("width", String(thumb + 1));
      rect.setAttribute("height", String(Math.round(tall * rows.length) + 2));
    }
    return { cell, tall, thumb };
  }
  let width = 0;
  let place = { cell: 0, tall: 0, thumb: 0 };

  return {
    element,
    /** @param {Shown} state */
    draw({ sample, step }) {
      const [wide] = surfaces.size(element);
      if (element.hidden || !wide) return;
      if (wide !== width) {
        width = wide;
        place = arrange(width);
      }
      const { cell, tall, thumb } = place;
      const left = cell / 2 + (last ? step / last : 0) * (width - cell) - thumb / 2 - 0.5;
      for (const rect of marker) rect.setAttribute("x", left.toFixed(2));
      const pen = surfaces.pen(canvas);
      if (!pen) return;
      const key = `${canvas.width}/${canvas.height}/${sample}`;
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
          const version = pictures.version(name, sample, at);
          const bitmap = pictures.get(name, sample, at);
          if (!bitmap || done.get(`${row}/${i}`) === version) continue;
          done.set(`${row}/${i}`, version);
          const left = (cell * (i + 0.5) - thumb / 2) * ratio;
          pen.drawImage(bitmap, left + 0.5 * ratio, (row * tall + 0.5) * ratio, (thumb - 1) * ratio, (tall - 1) * ratio);
        }
      });
    },
  };
}
