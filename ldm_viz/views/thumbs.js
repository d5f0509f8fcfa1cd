import { make, toBytes } from "./core.js";
// Small pictures of the conditioning lab.

/** @typedef {import("./core.js").Model & {send(content: any, callbacks?: any, buffers?: ArrayBuffer[]): void}} Model */
/** @typedef {{model: Model, signal: AbortSignal}} Host */

/**
 * A small picture: the file, or that of the lab's own picture of a name.
 * @param {Host} host @param {string} name @param {any} [file]
 */
export function makeThumb(host, name, file) {
  const { model } = host;
  const img = make("img", { alt: "", "data-name": name });
  const found = (model.get("_images") ?? []).find((/** @type {{name: string}} */ one) => one.name === name);
  if (file ?? found) showFile(host, img, file ?? found.file);
  return img;
}

/**
 * Show a small picture's WebP; its address is let go of once it is read.
 * @param {Host} host @param {HTMLImageElement} img @param {any} file
 */
export function showFile({ signal }, img, file) {
  const url = URL.createObjectURL(new Blob([toBytes(file).slice()], { type: "image/webp" }));
  const drop = () => URL.revokeObjectURL(url);
  img.addEventListener("load", drop, { signal });
  img.addEventListener("error", drop, { signal });
  img.src = url;
}
