import { formatFigure, make, makeRoot, setText, toBytes, watch } from "./core.js";
import { makePlane } from "./plane.js";
import { makeSender, makeTerms } from "./terms.js";
import { makeThumb, showFile } from "./thumbs.js";
import { makeTokens } from "./token_weights.js";
// The conditioning lab: an expression and its terms, the picture of it, and what it is near to.

/** @typedef {import("./thumbs.js").Model} Model */
/** @typedef {import("./thumbs.js").Host} Host */
/** @typedef {import("./terms.js").Sender} Sender */

const WISH = ["expression", "seed", "steps", "guidance_scale", "negative"];
const PATIENCE = 4000; // ms until a kernel that says nothing is told of
const STEP = 30000; // the same while it draws: a step of a large model takes long

/**
 * Whether the result that is shown is what is asked for.
 * @param {Model} model
 */
function isCurrent(model) {
  const result = model.get("_result") ?? {};
  return WISH.every((name) => result[name] === model.get(name));
}

/** @param {{model: Model, el: HTMLElement, signal: AbortSignal}} host */
function render(host) {
  const { el, signal } = host;
  const root = makeRoot("ldm-lab", signal);
  const sender = makeSender(host);
  const terms = makeTerms(host, sender);
  const left = make("div", { class: "ldm-lab-form" }, makeExpression(host, sender), terms.element, makeSettings(host, sender), makeButtons(host, sender));
  const right = make("div", { class: "ldm-lab-result" }, makePicture(host), makeOperands(host));
  const below = make("div", { class: "ldm-lab-below" }, makeNear(host), makePlane(host), makeTokens(host, terms));
  root.append(left, right, below, makeHistory(host));
  const age = () => root.classList.toggle("ldm-stale", !isCurrent(host.model));
  watch(host.model, ["_result", ...WISH], age, signal);
  age();
  signal.addEventListener("abort", () => root.remove(), { once: true });
  el.append(root);
}

/**
 * The written form, with what is wrong with it.
 * @param {Host} host
 * @param {Sender} sender
 */
function makeExpression({ model, signal }, { change, send }) {
  const area = make("textarea", { rows: 2, spellcheck: false, autocapitalize: "off" });
  const problem = make("p", { class: "ldm-problem", role: "alert" });
  const place = make("pre", { class: "ldm-place", "aria-hidden": true });
  const follow = () => { if (area.value !== model.get("expression")) area.value = model.get("expression"); };
  const tell = () => {
    const { reason, position } = model.get("_problem") ?? {};
    setText(problem, reason ?? "");
    problem.hidden = !reason;
    const shown = reason && position >= 0 && area.value;
    place.hidden = !shown;
    if (shown) {
      const text = area.value;
      const start = Math.max(text.lastIndexOf("\n", position - 1) + 1, position - 40);
      const line = text.slice(start, start + 80).split("\n")[0];
      place.textContent = `${line}\n${" ".repeat(position - start)}^`;
    }
    area.setAttribute("aria-invalid", String(Boolean(shown)));
  };
  area.addEventListener("input", () => change("expression", area.value, true), { signal });
  area.addEventListener("change", send, { signal });
  watch(model, ["expression"], follow, signal);
  watch(model, ["_problem"], tell, signal);
  follow();
  tell();
  const label = make("label", { class: "ldm-field" }, make("span", {}, "Expression"), area);
  return make("div", { class: "ldm-expression" }, label, place, problem);
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
    const trouble = make("small", { role: "status" });
    const follow = () => { if (input.value !== String(model.get(name))) input.value = String(model.get(name)); };
    const number = attributes.type === "number";
    // Numbers count once they are whole: half of one is another number.
    const take = () => {
      const wrong = number && (!input.value || !input.checkValidity());
      const whole = attributes.step === 1 ? "a whole number" : "a number";
      setText(trouble, wrong ? `${whole} from ${attributes.min} to ${attributes.max}` : "");
      if (wrong) follow();
      else change(name, number ? Number(input.value) : input.value, !number);
    };
    input.addEventListener(number ? "change" : "input", take, { signal });
    input.addEventListener("keydown", (event) => { if (event.key === "Enter") take(); }, { signal });
    watch(model, [name], () => { setText(trouble, ""); follow(); }, signal);
    follow();
    return make("label", { class: "ldm-field" }, make("span", {}, label), input, trouble);
  };
  return make(
    "div",
    { class: "ldm-settings" },
    field("seed", "Seed", { type: "number", min: 0, max: 4294967295, step: 1 }),
    field("steps", "Steps", { type: "number", min: 1, max: 1000, step: 1 }),
    field("guidance_scale", "Guidance", { type: "number", min: 0, max: 100, step: "any" }),
    field("negative", "Away from", { type: "text", placeholder: "nothing" }),
  );
}

/**
 * @param {Host} host
 * @param {Sender} sender
 */
function makeButtons({ model, signal }, { send }) {
  /** @param {string} label @param {string} what */
  const button = (label, what) => {
    const made = make("button", { type: "button" }, label);
    made.addEventListener("click", () => {
      send(); // what was changed just now comes first
      model.send({ do: what });
    }, { signal });
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
    const at = model.get("_at");
    // Not disabled, which would take the focus from whoever presses it again and again.
    undo.setAttribute("aria-disabled", String(at < 1 && (at < 0 || isCurrent(model))));
    redo.setAttribute("aria-disabled", String(at >= count - 1));
    open.disabled = !count;
    python.disabled = !model.get("expression");
  };
  watch(model, ["_history", "_at", "_result", ...WISH], follow, signal);
  watch(model, WISH, () => { code.hidden = true; }, signal);
  watch(model, ["_python"], () => {
    const { text } = model.get("_python") ?? {};
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
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let waiting;
  signal.addEventListener("abort", () => clearTimeout(waiting), { once: true });
  /** @param {boolean} drawing @param {number} patience */
  function expect(drawing, patience) {
    clearTimeout(waiting);
    if (drawing) waiting = setTimeout(() => {
      bar.style.visibility = "hidden";
      setText(words, "The kernel does not answer: it is busy, or was restarted. If so, run the cell again.");
    }, patience);
  }
  function showNews() {
    const { phase, done, steps, preview } = model.get("_news") ?? {};
    const drawing = phase === "drawing";
    expect(drawing, STEP);
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
      const old = !isCurrent(model);
      setText(words, !expression ? "Write an expression, or add a term." : old ? `This is still ${expression}` : `drawn in ${seconds} s`);
      void showResult();
    }
  }
  watch(model, WISH, () => {
    if ((model.get("_news") ?? {}).phase !== "drawing") showNews();
    if (!isCurrent(model)) expect(true, PATIENCE);
  }, signal);
  watch(model, ["_problem", "_terms"], () => expect((model.get("_news") ?? {}).phase === "drawing", STEP), signal);
  watch(model, ["_result", "_news"], () => { void showResult(); showNews(); }, signal);
  void showResult();
  showNews();
  return make("figure", {}, box, bar, words);
}

/** @param {number | null} cosine */
const cosineText = (cosine) => cosine === null ? "–" : cosine.toFixed(2).replace("-", "−");

/** @param {number | null} weight */
const formatWeight = (weight) => weight === null ? "–" : String(Number(weight.toPrecision(4))).replace("-", "−");

/** @param {Host} host */
function makeOperands({ model, signal }) {
  const body = make("tbody");
  const caption = make("caption");
  const head = make("thead", {}, make("tr", {}, ...["operand", "weight", "norm", "cosine"].map((name) => make("th", { scope: "col" }, name))));
  const table = make("table", { class: "ldm-operands" }, caption, head, body);
  const follow = () => {
    const { operands = /** @type {[string, number | null, number, number | null][]} */ ([]), norm, kind } = model.get("_facts") ?? {};
    table.hidden = !operands.length;
    caption.textContent = norm === undefined ? "" : `Result: norm ${formatFigure(norm)} in the ${kind === "joint" ? "joint text–image" : "prompt"} space; cosines are with it.`;
    body.replaceChildren(...operands.map((/** @type {[string, number | null, number, number | null]} */ [text, weight, size, cosine]) =>
      make("tr", {}, make("th", { scope: "row", title: text }, make("span", {}, text)), ...[formatWeight(weight), formatFigure(size), cosineText(cosine)].map((figure) => make("td", {}, figure)))));
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
  /** @param {[string, number, any?]} pair @param {HTMLElement[]} more */
  const item = ([name, cosine], ...more) => {
    const bar = make("i");
    bar.style.setProperty("--share", String(Math.max(0, cosine)));
    return make("li", {}, ...more, make("span", {}, name), bar, make("b", {}, cosineText(cosine)));
  };
  const follow = () => {
    const facts = model.get("_facts") ?? {};
    words.replaceChildren(...(facts.words ?? []).map((/** @type {[string, number]} */ pair) => item(pair)));
    pictures.replaceChildren(...(facts.pictures ?? []).map((/** @type {[string, number, any]} */ pair) => item(pair, makeThumb(host, pair[0], pair[2]))));
    titles[0].hidden = !words.children.length;
    titles[1].hidden = !pictures.children.length;
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
    const at = model.get("_at");
    if (drawn !== history) {
      drawn = history;
      list.replaceChildren(...history.map((/** @type {{expression: string, file: any, seed: number, number: number}} */ { expression, file, seed, number }, /** @type {number} */ i) => {
        const img = make("img", { alt: "" });
        showFile(host, img, file);
        const button = make("button", { type: "button", title: `${expression}, seed ${seed}`, "aria-label": `Result ${number}: ${expression}, seed ${seed}` }, img);
        button.addEventListener("click", () => model.send({ do: "go", at: i }), { signal });
        return button;
      }));
    }
    [...list.children].forEach((button, i) => {
      button.setAttribute("aria-pressed", String(i === at));
      /** @type {HTMLElement} */ (button).tabIndex = i === Math.max(0, at) ? 0 : -1;
      const { offsetLeft, offsetWidth } = /** @type {HTMLElement} */ (button);
      if (i === at) list.scrollLeft = offsetLeft - list.offsetLeft + offsetWidth / 2 - list.clientWidth / 2;
    });
    list.hidden = !history.length;
  };
  list.addEventListener("keydown", (event) => {
    const buttons = /** @type {HTMLElement[]} */ ([...list.children]);
    const at = buttons.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    buttons[to]?.focus();
  }, { signal });
  watch(model, ["_history", "_at"], follow, signal);
  follow();
  return list;
}

export const conditioning = { render };
export default conditioning;
