import { make, setText, toBytes, watch } from "./core.js";
// Ways to bring pictures into the conditioning lab.

/** @typedef {import("./thumbs.js").Host} Host */

const SIDE = 512; // pixels of an uploaded picture's longer side, at most
const PAINTING = 128; // pixels of a painted picture's sides

/**
 * Ways to bring pictures in: files, painting, and those that are there.
 * @param {Host} host
 * @param {(name: string) => void} use
 */
export function makeSources(host, use) {
  const { model, signal } = host;
  const trouble = make("p", { class: "ldm-hint", role: "status" });
  const names = () => (model.get("_images") ?? []).map((/** @type {{name: string}} */ one) => one.name);
  /** @type {string[]} */
  const sent = []; // and perhaps not heard of yet
  /** @param {string} wanted @param {ArrayBuffer} data */
  function bring(wanted, data) {
    const taken = [...names(), ...sent];
    let name = wanted.slice(0, 70);
    for (let n = 2; taken.includes(name); n++) name = `${wanted.slice(0, 70)} (${n})`;
    sent.push(name);
    model.send({ do: "picture", name }, undefined, [data]);
    use(name);
  }
  const file = make("input", { type: "file", accept: "image/*", class: "ldm-hidden", tabindex: -1, "aria-label": "A picture's file" });
  const upload = make("button", { type: "button" }, "+ picture…");
  upload.addEventListener("click", () => file.click(), { signal });
  file.addEventListener("change", async () => {
    const chosen = file.files?.[0];
    file.value = "";
    if (!chosen) return;
    const data = await shrink(chosen);
    if (signal.aborted) return;
    setText(trouble, data ? "" : `${chosen.name} cannot be read as a picture; choose a PNG, JPEG, WebP or GIF.`);
    if (data) bring(chosen.name, data);
  }, { signal });
  const known = make("select", { "aria-label": "Add a picture that is here" });
  const list = () => {
    known.replaceChildren(make("option", { value: "" }, "+ known picture"), ...names().map((/** @type {string} */ name) => make("option", { value: name }, name)));
    known.hidden = !names().length;
  };
  known.addEventListener("change", () => { if (known.value) use(known.value); known.value = ""; }, { signal });
  const result = make("button", { type: "button" }, "+ this result");
  result.addEventListener("click", () => {
    const { file: shown, number } = model.get("_result");
    const name = `result ${number}`;
    if (names().includes(name) || sent.includes(name)) use(name);
    else bring(name, toBytes(shown).slice().buffer);
  }, { signal });
  const follow = () => { result.disabled = !model.get("_result")?.file; };
  watch(model, ["_result"], follow, signal);
  follow();
  watch(model, ["_images"], list, signal);
  list();
  return { buttons: [upload, file, known, result], below: [trouble, makePainter(host, bring)] };
}

/**
 * A file as a PNG that is not larger than needed; null if it is no picture.
 * @param {Blob} file
 * @returns {Promise<ArrayBuffer | null>}
 */
async function shrink(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return null;
  const share = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = make("canvas", { width: Math.max(1, Math.round(bitmap.width * share)), height: Math.max(1, Math.round(bitmap.height * share)) });
  const pen = canvas.getContext("2d");
  if (!pen) return null;
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const blob = await new Promise((/** @type {BlobCallback} */ done) => canvas.toBlob(done, "image/png"));
  return blob && blob.arrayBuffer();
}

/**
 * A small canvas to paint a picture on.
 * @param {Host} host
 * @param {(name: string, data: ArrayBuffer) => void} bring
 */
function makePainter({ signal }, bring) {
  const canvas = make("canvas", { width: PAINTING, height: PAINTING, role: "img", "aria-label": "Canvas to paint on with a pointer" });
  const colour = make("input", { type: "color", value: "#d03030", "aria-label": "Colour" });
  const size = make("input", { type: "range", min: 2, max: 40, value: 16, style: "--at: 0.37", "aria-label": "Brush size" });
  const clear = make("button", { type: "button" }, "fill");
  const done = make("button", { type: "button" }, "use");
  const pen = canvas.getContext("2d");
  const fill = () => { if (pen) { pen.fillStyle = colour.value; pen.fillRect(0, 0, PAINTING, PAINTING); } };
  if (pen) { pen.fillStyle = "#9ccfff"; pen.fillRect(0, 0, PAINTING, PAINTING); }
  /** @type {[number, number] | null} */
  let before = null;
  /** @param {PointerEvent} event */
  const place = (event) => /** @type {[number, number]} */ ([(event.offsetX / canvas.clientWidth) * PAINTING, (event.offsetY / canvas.clientHeight) * PAINTING]);
  /** @param {PointerEvent} event */
  const stroke = (event) => {
    if (!pen || !before) return;
    const now = place(event);
    pen.strokeStyle = colour.value;
    pen.lineWidth = Number(size.value);
    pen.lineCap = "round";
    pen.beginPath();
    pen.moveTo(...before);
    pen.lineTo(...now);
    pen.stroke();
    before = now;
  };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); before = place(event); stroke(event); }, { signal });
  canvas.addEventListener("pointermove", stroke, { signal });
  canvas.addEventListener("pointerup", () => { before = null; }, { signal });
  clear.addEventListener("click", fill, { signal });
  const details = make("details", { class: "ldm-painter" }, make("summary", {}, "paint a picture"), canvas, make("div", {}, colour, size, clear, done));
  done.addEventListener("click", () => {
    canvas.toBlob(async (blob) => {
      if (!blob || signal.aborted) return;
      bring("painting", await blob.arrayBuffer());
      details.open = false;
    });
  }, { signal });
  return details;
}
