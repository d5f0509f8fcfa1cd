import { formatFigure, make, makeRoot, makeSvg, setText, toBytes, watch } from "./core.js";
// The conditioning lab: an expression and its terms, the picture of it, and what it is near to.

/** @typedef {import("./core.js").Model & {send(content: any, callbacks?: any, buffers?: ArrayBuffer[]): void}} Model */
/** @typedef {{kind: "text" | "image", text: string, weight: string}} Term */
/** @typedef {{model: Model, signal: AbortSignal}} Host */

const SETTLE = 120; // ms without a change until the kernel hears of it
const SIDE = 512; // pixels of an uploaded picture's longer side, at most
const PAINTING = 128; // pixels of a painted picture's sides

/** @param {string} text */
const quote = (text) => JSON.stringify(text);

/**
 * Terms as an expression.
 * @param {Term[]} terms
 */
export function compose(terms) {
  return terms
    .map(({ kind, text, weight }, i) => {
      const negative = weight.startsWith("-");
      const size = negative ? weight.slice(1) : weight;
      const name = kind === "image" ? `image(${quote(text)})` : quote(text);
      const sign = negative ? "-" : i ? "+" : "";
      return `${i ? ` ${sign} ` : sign}${size === "1" ? name : `${size} * ${name}`}`;
    })
    .join("");
}

/**
 * A weight as its shortest decimal number.
 * @param {number} value
 */
export function weightText(value) {
  return String(Number(value.toFixed(3))) === "-0" ? "0" : String(Number(value.toFixed(3)));
}

/**
 * Changes go to the kernel when they have settled; a release sends at once.
 * @param {Host} host
 */
function makeSender({ model, signal }) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let waiting;
  const send = () => {
    clearTimeout(waiting);
    model.save_changes();
  };
  signal.addEventListener("abort", () => clearTimeout(waiting), { once: true });
  return {
    send,
    /** @param {string} name @param {any} value */
    change(name, value) {
      model.set(name, value);
      clearTimeout(waiting);
      waiting = setTimeout(send, SETTLE);
    },
  };
}

/** @typedef {ReturnType<typeof makeSender>} Sender */

/** @param {{model: Model, el: HTMLElement, signal: AbortSignal}} host */
function render(host) {
  const { el, signal } = host;
  const root = makeRoot("ldm-lab", signal);
  const sender = makeSender(host);
  const left = make("div", { class: "ldm-lab-form" }, makeExpression(host, sender), makeTerms(host, sender), makeSettings(host, sender), makeButtons(host));
  const right = make("div", { class: "ldm-lab-result" }, makePicture(host), makeOperands(host));
  const below = make("div", { class: "ldm-lab-below" }, makeNear(host), makePlane(host), makeTokens(host));
  root.append(left, right, below, makeHistory(host));
  signal.addEventListener("abort", () => root.remove(), { once: true });
  el.append(root);
}

/**
 * The written form, with what is wrong with it.
 * @param {Host} host
 * @param {Sender} sender
 */
function makeExpression({ model, signal }, { change }) {
  const area = make("textarea", { rows: 2, spellcheck: false, autocapitalize: "off" });
  const problem = make("p", { class: "ldm-problem", role: "alert" });
  const place = make("pre", { class: "ldm-place", "aria-hidden": true });
  const follow = () => { if (area.value !== model.get("expression")) area.value = model.get("expression"); };
  const tell = () => {
    const { reason, position } = model.get("_problem") ?? {};
    setText(problem, reason ?? "");
    problem.hidden = !reason;
    const shown = reason && position >= 0;
    place.hidden = !shown;
    if (shown) {
      const text = area.value;
      const start = Math.max(text.lastIndexOf("\n", position - 1) + 1, position - 40);
      const line = text.slice(start, start + 80).split("\n")[0];
      place.textContent = `${line}\n${" ".repeat(position - start)}^`;
    }
    area.setAttribute("aria-invalid", String(Boolean(shown)));
  };
  area.addEventListener("input", () => change("expression", area.value), { signal });
  watch(model, ["expression"], follow, signal);
  watch(model, ["_problem"], tell, signal);
  follow();
  tell();
  const label = make("label", { class: "ldm-field" }, make("span", {}, "Expression"), area);
  return make("div", { class: "ldm-expression" }, label, place, problem);
}

/**
 * The terms with their weights, as long as the expression is a plain sum.
 * @param {Host} host
 * @param {Sender} sender
 */
function makeTerms(host, { change, send }) {
  const { model, signal } = host;
  const rows = make("div", { class: "ldm-terms" });
  const note = make("p", { class: "ldm-hint" }, "This is more than a sum of texts and pictures: change it above.");
  /** @type {Term[]} */
  let terms = [];
  /** @type {{text: HTMLInputElement | null, slider: HTMLInputElement, number: HTMLInputElement}[]} */
  let controls = [];
  let of = ""; // the expression that the terms are of
  const tell = () => {
    of = compose(terms);
    change("expression", of);
  };

  /** @param {HTMLInputElement} slider @param {string} weight */
  function place(slider, weight) {
    slider.value = weight;
    slider.style.setProperty("--at", String((Number(slider.value) - Number(slider.min)) / (Number(slider.max) - Number(slider.min))));
  }
  /** @param {number} i @param {string} weight */
  function weigh(i, weight) {
    terms[i].weight = weight;
    place(controls[i].slider, weight);
    if (document.activeElement !== controls[i].number) controls[i].number.value = weight;
    tell();
  }

  /** @param {Term} term @param {number} i */
  function makeRow(term, i) {
    const what = term.kind === "image" ? `picture ${term.text}` : term.text || "text";
    const slider = make("input", { type: "range", min: -2, max: 2, step: 0.05, "aria-label": `Weight of ${what}` });
    const number = make("input", { type: "number", step: 0.05, value: term.weight, "aria-label": `Weight of ${what}, as a number` });
    place(slider, term.weight);
    slider.addEventListener("input", () => weigh(i, weightText(Number(slider.value))), { signal });
    slider.addEventListener("change", send, { signal });
    number.addEventListener("input", () => { if (number.value) weigh(i, weightText(Number(number.value))); }, { signal });
    const remove = make("button", { type: "button", class: "ldm-plain", "aria-label": `Remove ${what}` }, "×");
    remove.addEventListener("click", () => { terms = terms.filter((_, k) => k !== i); build(); tell(); send(); }, { signal });
    /** @type {HTMLInputElement | null} */
    let text = null;
    /** @type {HTMLElement} */
    let name;
    if (term.kind === "text") {
      text = make("input", { type: "text", "aria-label": `Text ${i + 1}`, placeholder: "a text" });
      text.value = term.text;
      const field = text;
      field.addEventListener("input", () => { terms[i].text = field.value; tell(); }, { signal });
      name = text;
    } else {
      name = make("span", { class: "ldm-named" }, makeThumb(host, term.text), term.text);
    }
    controls.push({ text, slider, number });
    return make("div", { class: "ldm-term" }, name, slider, number, remove);
  }

  function build() {
    controls = [];
    rows.replaceChildren(...terms.map(makeRow));
  }
  function follow() {
    /** @type {{of?: string, terms?: Term[]}} */
    const told = model.get("_terms") ?? {};
    const expression = model.get("expression");
    // What the kernel tells may be of an older expression; and what is of ours is here already.
    if (told.of === expression && told.of !== of) {
      of = told.of ?? "";
      terms = (told.terms ?? []).map((term) => ({ ...term }));
      build();
    }
    note.hidden = !expression || terms.length > 0;
  }
  /** @param {Term} term */
  function add(term) {
    const expression = model.get("expression");
    if (expression && (of !== expression || !terms.length)) {
      // More than a sum, or not right yet: what is written stays as it is.
      change("expression", `${expression} + ${compose([term])}`);
      send();
      return;
    }
    terms.push(term);
    build();
    tell();
    send();
    const last = controls[controls.length - 1];
    (last.text ?? last.slider).focus();
  }
  const text = make("button", { type: "button" }, "+ text");
  text.addEventListener("click", () => { add({ kind: "text", text: "", weight: "1" }); }, { signal });
  const adders = make("div", { class: "ldm-adders" }, text);
  if (model.get("_about").pictures) adders.append(...makeSources(host, (name) => add({ kind: "image", text: name, weight: "1" })));
  watch(model, ["_terms", "expression"], follow, signal);
  watch(model, ["_images"], () => rows.querySelectorAll("img").forEach((img) => {
    const fresh = makeThumb(host, img.dataset.name ?? "");
    img.replaceWith(fresh);
  }), signal);
  follow();
  return make("div", {}, rows, note, adders);
}

/**
 * A picture by its name, small.
 * @param {Host} host @param {string} name
 */
function makeThumb(host, name) {
  const { model } = host;
  const img = make("img", { alt: "", "data-name": name });
  const found = (model.get("_images") ?? []).find((/** @type {{name: string}} */ one) => one.name === name);
  if (found) showFile(host, img, found.file, "image/png");
  return img;
}

/**
 * Show a file; its address is let go of once it is read.
 * @param {Host} host @param {HTMLImageElement} img @param {any} file @param {string} type
 */
function showFile({ signal }, img, file, type) {
  const url = URL.createObjectURL(new Blob([toBytes(file).slice()], { type }));
  const drop = () => URL.revokeObjectURL(url);
  img.addEventListener("load", drop, { signal });
  img.addEventListener("error", drop, { signal });
  signal.addEventListener("abort", drop, { once: true });
  img.src = url;
}

/**
 * Ways to bring pictures in: files, painting, and those that are there.
 * @param {Host} host
 * @param {(name: string) => void} use
 * @returns {HTMLElement[]}
 */
function makeSources(host, use) {
  const { model, signal } = host;
  const file = make("input", { type: "file", accept: "image/*", class: "ldm-hidden", tabindex: -1, "aria-label": "A picture's file" });
  const upload = make("button", { type: "button" }, "+ picture…");
  upload.addEventListener("click", () => file.click(), { signal });
  file.addEventListener("change", async () => {
    const chosen = file.files?.[0];
    file.value = "";
    if (!chosen) return;
    const data = await shrink(chosen);
    if (signal.aborted) return;
    if (!data) {
      model.set("_problem", { reason: `${chosen.name} cannot be read as a picture.`, position: -1 });
      return;
    }
    const name = chosen.name.slice(0, 80);
    model.send({ do: "picture", name }, undefined, [data]);
    use(name);
  }, { signal });
  const known = make("select", { "aria-label": "Add a picture that is here" });
  const list = () => {
    const names = (model.get("_images") ?? []).map((/** @type {{name: string}} */ one) => one.name);
    known.replaceChildren(make("option", { value: "" }, "+ known picture"), ...names.map((/** @type {string} */ name) => make("option", { value: name }, name)));
    known.hidden = !names.length;
  };
  known.addEventListener("change", () => { if (known.value) use(known.value); known.value = ""; }, { signal });
  const result = make("button", { type: "button" }, "+ this result");
  result.addEventListener("click", () => {
    const shown = model.get("_result")?.file;
    if (!shown) return;
    const name = `result ${model.get("_at") + 1}`;
    model.send({ do: "picture", name }, undefined, [toBytes(shown).slice().buffer]);
    use(name);
  }, { signal });
  watch(model, ["_images"], list, signal);
  list();
  return [upload, file, known, result, makePainter(host, use)];
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
 * @param {(name: string) => void} use
 */
function makePainter({ model, signal }, use) {
  const canvas = make("canvas", { width: PAINTING, height: PAINTING, role: "img", "aria-label": "Canvas to paint on with a pointer" });
  const colour = make("input", { type: "color", value: "#d03030", "aria-label": "Colour" });
  const size = make("input", { type: "range", min: 2, max: 40, value: 16, style: "--at: 0.37", "aria-label": "Brush size" });
  const clear = make("button", { type: "button" }, "fill");
  const done = make("button", { type: "button" }, "use");
  const pen = canvas.getContext("2d");
  const fill = () => { if (pen) { pen.fillStyle = colour.value; pen.fillRect(0, 0, PAINTING, PAINTING); } };
  if (pen) { pen.fillStyle = "#9ccfff"; pen.fillRect(0, 0, PAINTING, PAINTING); }
  let count = 0;
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
      const name = `painting ${++count}`;
      model.send({ do: "picture", name }, undefined, [await blob.arrayBuffer()]);
      use(name);
      details.open = false;
    });
  }, { signal });
  return details;
}

/**
 * Seed, steps, guidance, negative.
 * @param {Host} host
 * @param {Sender} sender
 */
function makeSettings({ model, signal }, { change }) {
  /** @param {string} name @param {string} label @param {Record<string, any>} attributes */
  const field = (name, label, attributes) => {
    const input = make("input", attributes);
    const follow = () => { if (input.value !== String(model.get(name))) input.value = String(model.get(name)); };
    input.addEventListener("input", () => {
      if (attributes.type !== "number") change(name, input.value);
      else if (input.value && input.checkValidity()) change(name, Number(input.value));
    }, { signal });
    watch(model, [name], follow, signal);
    follow();
    return make("label", { class: "ldm-field" }, make("span", {}, label), input);
  };
  return make(
    "div",
    { class: "ldm-settings" },
    field("seed", "Seed", { type: "number", min: 0, max: 4294967295, step: 1 }),
    field("steps", "Steps", { type: "number", min: 1, max: 1000, step: 1 }),
    field("guidance_scale", "Guidance", { type: "number", min: 0, max: 100, step: 0.1 }),
    field("negative", "Away from", { type: "text", placeholder: "nothing" }),
  );
}

/** @param {Host} host */
function makeButtons({ model, signal }) {
  /** @param {string} label @param {string} what */
  const button = (label, what) => {
    const made = make("button", { type: "button" }, label);
    made.addEventListener("click", () => model.send({ do: what }), { signal });
    return made;
  };
  const undo = button("Undo", "undo");
  const redo = button("Redo", "redo");
  const open = button("Open in the explorer", "open");
  const python = button("Copy as Python", "python");
  const code = make("pre", { class: "ldm-code", tabindex: 0, "aria-label": "The same in Python" });
  code.hidden = true;
  const follow = () => {
    const count = (model.get("_history") ?? []).length;
    undo.disabled = model.get("_at") < 1;
    redo.disabled = model.get("_at") >= count - 1;
    open.disabled = !count;
  };
  watch(model, ["_history", "_at"], follow, signal);
  watch(model, ["_python"], () => {
    const text = model.get("_python");
    code.textContent = text;
    code.hidden = !text;
    void navigator.clipboard?.writeText(text).then(() => setText(python, "Copied"), () => undefined);
    setTimeout(() => setText(python, "Copy as Python"), 1500);
  }, signal);
  follow();
  return make("div", {}, make("div", { class: "ldm-buttons" }, undo, redo, open, python), code);
}

/** @param {Host} host */
function makePicture({ model, signal }) {
  const canvas = make("canvas", { role: "img", "aria-label": "No picture yet" });
  const words = make("p", { class: "ldm-hint", role: "status" });
  const bar = make("progress", { max: 1, value: 0, "aria-label": "Progress" });
  const box = make("div", { class: "ldm-box" }, canvas);
  const pen = canvas.getContext("2d");
  /** @type {any} */
  let drawn = null;
  async function showResult() {
    const { file, width, height, expression } = model.get("_result") ?? {};
    if (!file || file === drawn) return;
    drawn = file;
    const bitmap = await createImageBitmap(new Blob([toBytes(file).slice()], { type: "image/png" }));
    if (signal.aborted || drawn !== file) return bitmap.close();
    canvas.width = width;
    canvas.height = height;
    box.style.setProperty("--aspect", String(width / height));
    pen?.drawImage(bitmap, 0, 0);
    bitmap.close();
    canvas.setAttribute("aria-label", `Picture of ${expression}`);
    canvas.dataset.of = expression;
    delete canvas.dataset.preview;
  }
  function showNews() {
    const { phase, done, steps, preview } = model.get("_news") ?? {};
    const drawing = phase === "drawing";
    bar.style.visibility = drawing ? "" : "hidden";
    if (drawing) {
      bar.value = steps ? done / steps : 0;
      setText(words, `step ${done} of ${steps ?? "?"}`);
      if (preview && pen) {
        drawn = null;
        canvas.width = preview.width;
        canvas.height = preview.height;
        const image = new ImageData(preview.width, preview.height);
        const rgb = toBytes(preview.rgb);
        for (let i = 0; i < preview.width * preview.height; i++) {
          image.data.set([rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2], 255], 4 * i);
        }
        pen.putImageData(image, 0, 0);
        canvas.dataset.preview = "true";
      }
    } else {
      const { seconds, expression } = model.get("_result") ?? {};
      setText(words, expression ? `drawn in ${seconds} s` : "Write an expression, or add a term.");
      void showResult();
    }
  }
  watch(model, ["_result", "_news"], () => { void showResult(); showNews(); }, signal);
  void showResult();
  showNews();
  return make("figure", {}, box, bar, words);
}

/** @param {Host} host */
function makeOperands({ model, signal }) {
  const body = make("tbody");
  const caption = make("caption");
  const head = make("thead", {}, make("tr", {}, ...["operand", "weight", "norm", "cosine"].map((name) => make("th", { scope: "col" }, name))));
  const table = make("table", { class: "ldm-operands" }, caption, head, body);
  const follow = () => {
    const { operands = /** @type {[string, number, number, number][]} */ ([]), norm } = model.get("_facts") ?? {};
    table.hidden = !operands.length;
    caption.textContent = norm === undefined ? "" : `Result: norm ${formatFigure(norm)}; cosines are with it.`;
    body.replaceChildren(...operands.map((/** @type {[string, number, number, number]} */ [text, weight, size, cosine]) =>
      make("tr", {}, make("th", { scope: "row" }, text), ...[weight, size, cosine].map((n) => make("td", {}, formatFigure(n))))));
  };
  watch(model, ["_facts"], follow, signal);
  follow();
  return table;
}

/** @param {Host} host */
function makeNear(host) {
  const { model, signal } = host;
  const words = make("ol");
  const pictures = make("ol", { class: "ldm-near-pictures" });
  const titles = [make("h3", {}, "Nearest words"), make("h3", {}, "Nearest pictures")];
  const element = make("section", { class: "ldm-near" }, titles[0], words, titles[1], pictures);
  /** @param {[string, number]} pair @param {HTMLElement[]} more */
  const item = ([name, cosine], ...more) => {
    const bar = make("i");
    bar.style.setProperty("--share", String(Math.max(0, cosine)));
    return make("li", {}, ...more, make("span", {}, name), bar, make("b", {}, cosine.toFixed(2).replace("-", "−")));
  };
  const follow = () => {
    const facts = model.get("_facts") ?? {};
    words.replaceChildren(...(facts.words ?? []).map((/** @type {[string, number]} */ pair) => item(pair)));
    pictures.replaceChildren(...(facts.pictures ?? []).map((/** @type {[string, number]} */ pair) => item(pair, makeThumb(host, pair[0]))));
    titles[0].hidden = !words.children.length;
    titles[1].hidden = !pictures.children.length;
  };
  watch(model, ["_facts"], follow, signal);
  follow();
  return element;
}

/**
 * The plane of the words, with the operands and the path from the first term to the result.
 * @param {Host} host
 */
function makePlane({ model, signal }) {
  const drawing = makeSvg("svg", { viewBox: "0 0 320 240", role: "img", "aria-label": "Words, operands and the result on a plane" });
  const element = make("section", { class: "ldm-plane" }, make("h3", {}, "On a plane"));
  element.append(drawing);
  const follow = () => {
    /** @type {{places?: [string, number, number][], path?: [number, number][], operand_places?: [string, number, number][]}} */
    const { places = [], path = [], operand_places: operands = [] } = model.get("_facts") ?? {};
    element.hidden = !operands.length;
    const all = [...path, ...[...places, ...operands].map(([, x, y]) => [x, y])];
    const xs = all.map(([x]) => x);
    const ys = all.map(([, y]) => y);
    const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    /** @param {number} x */
    const across = (x) => 24 + ((x - left) / (right - left || 1)) * 250;
    /** @param {number} y */
    const down = (y) => 224 - ((y - low) / (high - low || 1)) * 208;
    /** @param {string} name @param {number} x @param {number} y @param {string} className @param {number} r */
    const dot = (name, x, y, className, r) => {
      const group = makeSvg("g", { class: className });
      group.append(makeSvg("circle", { cx: across(x), cy: down(y), r }));
      if (name) {
        const label = makeSvg("text", { x: across(x) + r + 3, y: down(y) + 3.5 });
        label.textContent = name.length > 22 ? `${name.slice(0, 21)}…` : name;
        group.append(label);
      }
      return group;
    };
    const line = path.map(([x, y], i) => `${i ? "L" : "M"}${across(x)} ${down(y)}`).join("");
    const last = path[path.length - 1];
    drawing.replaceChildren(
      ...places.map(([name, x, y]) => dot(name, x, y, "ldm-word", 2)),
      ...operands.map(([name, x, y]) => dot(name, x, y, "ldm-operand", 3.5)),
      makeSvg("path", { d: line || "M0 0", class: "ldm-path" }),
      ...(last ? [dot("result", last[0], last[1], "ldm-end", 5)] : []),
    );
  };
  watch(model, ["_facts"], follow, signal);
  follow();
  return element;
}

/** @param {Host} host */
function makeTokens({ model, signal }) {
  const lines = make("div");
  const element = make("section", { class: "ldm-tokens" }, make("h3", {}, "Tokens"), lines);
  const follow = () => {
    /** @type {[string, boolean, boolean][][]} */
    const texts = model.get("_facts")?.tokens ?? [];
    element.hidden = !texts.some((tokens) => tokens.length);
    lines.replaceChildren(...texts.map((tokens) => make("p", {}, ...tokens.filter(([, , special]) => !special).map(([text, kept]) =>
      make(kept ? "span" : "s", kept ? {} : { title: "beyond what the encoder reads: cut off" }, text)))));
  };
  watch(model, ["_facts"], follow, signal);
  follow();
  return element;
}

/** @param {Host} host */
function makeHistory(host) {
  const { model, signal } = host;
  const list = make("div", { class: "ldm-history", role: "group", "aria-label": "Results so far" });
  /** @type {any} */
  let drawn = null;
  const follow = () => {
    const history = model.get("_history") ?? [];
    if (drawn !== history) {
      drawn = history;
      list.replaceChildren(...history.map((/** @type {{expression: string, file: any, seed: number}} */ { expression, file, seed }, /** @type {number} */ i) => {
        const img = make("img", { alt: "" });
        showFile(host, img, file, "image/webp");
        const button = make("button", { type: "button", title: `${expression}, seed ${seed}`, "aria-label": `Result ${i + 1}: ${expression}, seed ${seed}` }, img);
        button.addEventListener("click", () => model.send({ do: "go", at: i }), { signal });
        return button;
      }));
    }
    [...list.children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === model.get("_at"))));
    list.hidden = !history.length;
  };
  watch(model, ["_history", "_at"], follow, signal);
  follow();
  return list;
}

export const conditioning = { render };
export default conditioning;
