import { make, makeSvg, watch } from "./core.js";
// The plane of the words, with the operands and the path to the result.

/** @typedef {import("./thumbs.js").Host} Host */
/** @typedef {{name: string, x: number, y: number, r: number, kind: string}} Dot */
/** @typedef {{left: number, top: number, right: number, bottom: number}} Box */

const SHARE = 0.72; // of the drawing's height in its width
const MARGIN = 14; // pixels
const LETTER = 6; // a letter's width, about
const LINE = 13;
const LONGEST = 24; // letters of a label

/** @param {string} name */
const shorten = (name) => name.length > LONGEST ? `${name.slice(0, LONGEST - 1)}…` : name;

/** @param {Box} a @param {Box} b */
const overlap = (a, b) =>
  Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left)) * Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));

/**
 * Where a dot's label goes: beside, above or below it, where it covers least.
 * @param {Dot} dot @param {Box[]} taken @param {number} width @param {number} height
 * @returns {{box: Box, covers: number}}
 */
function placeLabel({ name, x, y, r }, taken, width, height) {
  const size = LETTER * shorten(name).length;
  const beside = y - LINE / 2;
  const lefts = [[x + r + 3, beside], [x - r - 3 - size, beside], [x - size / 2, y - r - LINE - 1], [x - size / 2, y + r + 1]];
  const found = lefts.map(([left, top]) => {
    const box = { left, top, right: left + size, bottom: top + LINE };
    const outside = size * LINE - overlap(box, { left: 0, top: 0, right: width, bottom: height });
    return { box, covers: outside + taken.reduce((sum, other) => sum + overlap(box, other), 0) };
  });
  return found.reduce((best, one) => one.covers < best.covers - 0.5 ? one : best);
}

/** @param {Host} host */
export function makePlane({ model, signal }) {
  const drawing = makeSvg("svg", { role: "img", "aria-label": "Words, operands and the result on a plane" });
  const element = make("section", { class: "ldm-plane" }, make("h3", {}, "On a plane"));
  element.append(drawing);
  const draw = () => {
    /** @type {{places?: [string, number, number][], path?: [number, number][], operand_places?: [string, number, number][]}} */
    const { places = [], path = [], operand_places: operands = [] } = model.get("_facts") ?? {};
    element.hidden = !operands.length;
    const width = drawing.clientWidth;
    if (element.hidden || !width) return;
    const height = Math.round(width * SHARE);
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const all = [...path, ...[...places, ...operands].map(([, x, y]) => [x, y])];
    const [xs, ys] = [all.map(([x]) => x), all.map(([, y]) => y)];
    const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    // One scale for both directions, so that angles are seen as they are.
    const scale = Math.min((width - 2 * MARGIN) / (right - left || 1e-9), (height - 2 * MARGIN) / (high - low || 1e-9));
    /** @param {number} x */
    const across = (x) => width / 2 + (x - (left + right) / 2) * scale;
    /** @param {number} y */
    const down = (y) => height / 2 - (y - (low + high) / 2) * scale;
    const last = path[path.length - 1];
    /** @type {Dot[]} */
    const dots = [
      ...(last ? [{ name: "result", x: across(last[0]), y: down(last[1]), r: 5, kind: "ldm-end" }] : []),
      ...operands.map(([name, x, y]) => ({ name, x: across(x), y: down(y), r: 3.5, kind: "ldm-operand" })),
      ...places.map(([name, x, y]) => ({ name, x: across(x), y: down(y), r: 2, kind: "ldm-word" })),
    ];
    /** @type {Box[]} */
    const taken = dots.map(({ x, y, r }) => ({ left: x - r, top: y - r, right: x + r, bottom: y + r }));
    const groups = dots.map((dot) => {
      const group = makeSvg("g", { class: dot.kind });
      group.append(makeSvg("circle", { cx: dot.x, cy: dot.y, r: dot.r }));
      const { box, covers } = placeLabel(dot, taken, width, height);
      const title = makeSvg("title", {});
      title.textContent = dot.name;
      group.append(title);
      // A word without room keeps its dot, and its name for who points at it.
      if (dot.kind !== "ldm-word" || covers < LINE) {
        taken.push(box);
        const label = makeSvg("text", { x: box.left, y: box.bottom - 3 });
        label.textContent = shorten(dot.name);
        group.append(label);
      }
      return group;
    });
    const line = path.map(([x, y], i) => `${i ? "L" : "M"}${across(x)} ${down(y)}`).join("");
    groups.reverse();
    drawing.replaceChildren(makeSvg("path", { d: line || "M0 0", class: "ldm-path" }), ...groups);
  };
  const seen = new ResizeObserver(draw);
  seen.observe(element);
  signal.addEventListener("abort", () => seen.disconnect(), { once: true });
  watch(model, ["_facts"], draw, signal);
  draw();
  return element;
}
