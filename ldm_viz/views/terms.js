import { make, setText, watch } from "./core.js";
import { makeSources } from "./picture_sources.js";
import { makeThumb } from "./thumbs.js";
// The terms of an expression, with their weights.

/** @typedef {import("./thumbs.js").Host} Host */
/** @typedef {{kind: "text" | "image", text: string, weight: string, words: [string, string][], fresh?: boolean}} Term */
/** @typedef {ReturnType<typeof makeTerms>} Terms */

const SETTLE = 120; // ms without a change until the kernel hears of it
const TYPED = 500; // the same for what is written, which is seldom right before it is whole

/** @param {string} text */
const quote = (text) => JSON.stringify(text);

/**
 * Terms as an expression.
 * @param {Term[]} terms
 */
export function compose(terms) {
  return terms
    .map(({ kind, text, weight, words }, i) => {
      const negative = weight.startsWith("-");
      const size = negative ? weight.slice(1) : weight;
      const plain = kind === "image" ? `image(${quote(text)})` : quote(text);
      const name = words.length ? `weigh(${[plain, ...words.map(([word, share]) => `${quote(word)}, ${share}`)].join(", ")})` : plain;
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
  const text = value.toFixed(12).replace(/0+$/, ``).replace(/\.$/, ``);
  return text === `-0` ? `0` : text;
}

/**
 * Whether words stand in a text, as the kernel looks for them.
 * @param {string} text @param {string} words
 */
export function hasWords(text, words) {
  const letter = `[\\p{L}\\p{N}_]`;
  const edge = new RegExp(letter, `u`);
  const inner = words.replace(/[.*+?^${}()|[\]\\]/g, `\\$&`);
  const before = edge.test(words.slice(0, 1)) ? `(?<!${letter})` : ``;
  const behind = edge.test(words.slice(-1)) ? `(?!${letter})` : ``;
  return new RegExp(before + inner + behind, `iu`).test(text);
}

/**
 * A weight as controls take it: thirds and the like are written as quotients.
 * @param {string} weight
 */
export function decimal(weight) {
  const [above, below] = weight.split("/");
  return below ? weightText(Number(above) / Number(below)) : weight;
}

/**
 * Set a slider; its filled part is drawn by its style.
 * @param {HTMLInputElement} slider @param {string} weight
 */
export function placeSlider(slider, weight) {
  slider.value = decimal(weight);
  slider.style.setProperty("--at", String((Number(slider.value) - Number(slider.min)) / (Number(slider.max) - Number(slider.min))));
}

/**
 * Changes go to the kernel when they have settled; a release sends at once.
 * @param {Host} host
 */
export function makeSender({ model, signal }) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let waiting;
  const send = () => {
    clearTimeout(waiting);
    model.save_changes();
  };
  signal.addEventListener("abort", () => clearTimeout(waiting), { once: true });
  return {
    send,
    /** @param {string} name @param {any} value @param {boolean} [typed] */
    change(name, value, typed) {
      model.set(name, value);
      clearTimeout(waiting);
      waiting = setTimeout(send, typed ? TYPED : SETTLE);
    },
  };
}

/** @typedef {ReturnType<typeof makeSender>} Sender */

/**
 * The terms with their weights, as long as the expression is a plain sum.
 * @param {Host} host
 * @param {Sender} sender
 */
export function makeTerms(host, { change, send }) {
  const { model, signal } = host;
  const rows = make("div", { class: "ldm-terms" });
  const note = make("p", { class: "ldm-hint" }, "This is more than a sum of texts and pictures: change it above.");
  /** @type {Term[]} */
  let terms = [];
  /** @type {{field: HTMLInputElement | null, words: HTMLElement | null, slider: HTMLInputElement, number: HTMLInputElement, remove: HTMLButtonElement}[]} */
  let controls = [];
  let of = ""; // the expression that the terms are of
  /** @type {(() => void)[]} */
  const followers = [];
  const changed = () => {
    terms.forEach((term, i) => {
      const { words } = controls[i];
      if (words) setText(words, term.words.map(([word, share]) => `${word} ×${share}`).join(", "));
    });
    followers.forEach((follower) => follower());
  };
  const tell = (typed = false) => {
    of = compose(terms.filter(({ fresh }) => !fresh));
    change("expression", of, typed);
    changed();
  };

  /** @param {number} i @param {string} weight @param {boolean} [typed] */
  function weigh(i, weight, typed) {
    terms[i].weight = weight;
    placeSlider(controls[i].slider, weight);
    if (document.activeElement !== controls[i].number) controls[i].number.value = decimal(weight);
    tell(typed);
  }

  /** @param {Term} term @param {number} i */
  function makeRow(term, i) {
    const slider = make("input", { type: "range", min: -2, max: 2, step: 0.05 });
    const number = make("input", { type: "number", step: 0.05, value: decimal(term.weight) });
    placeSlider(slider, term.weight);
    slider.addEventListener("input", () => weigh(i, weightText(Number(slider.value))), { signal });
    slider.addEventListener("change", send, { signal });
    number.addEventListener("input", () => { if (number.value) weigh(i, weightText(Number(number.value)), true); }, { signal });
    number.addEventListener("change", send, { signal });
    const remove = make("button", { type: "button", class: "ldm-plain" }, "×");
    remove.addEventListener("click", () => {
      terms = terms.filter((_, k) => k !== i);
      build();
      tell();
      send();
      (controls[Math.min(i, terms.length - 1)]?.remove ?? text).focus();
    }, { signal });
    const label = () => {
      const called = term.kind === "image" ? `picture ${term.text}` : term.text || `text ${i + 1}`;
      slider.setAttribute("aria-label", `Weight of ${called}`);
      number.setAttribute("aria-label", `Weight of ${called}, as a number`);
      remove.setAttribute("aria-label", `Remove ${called}`);
    };
    /** @type {HTMLInputElement | null} */
    let field = null;
    /** @type {HTMLElement | null} */
    let words = null;
    /** @type {HTMLElement} */
    let name;
    if (term.kind === "text") {
      const written = make("input", { type: "text", "aria-label": `Text ${i + 1}`, placeholder: "a text", value: term.text });
      written.addEventListener("input", () => {
        term.text = written.value;
        term.fresh = false;
        term.words = term.words.filter(([word]) => hasWords(written.value, word));
        label();
        tell(true);
      }, { signal });
      written.addEventListener("change", send, { signal });
      field = written;
      words = make("small");
      name = make("div", {}, field, words);
    } else {
      name = make("span", { class: "ldm-named" }, makeThumb(host, term.text), term.text);
    }
    label();
    controls.push({ field, words, slider, number, remove });
    return make("div", { class: "ldm-term" }, name, slider, number, remove);
  }

  function build() {
    controls = [];
    rows.replaceChildren(...terms.map(makeRow));
    changed();
  }
  function follow() {
    /** @type {{of?: string, terms?: Term[]}} */
    const told = model.get("_terms") ?? {};
    const expression = model.get("expression");
    // What the kernel tells may be of an older expression; and what is of ours is here already.
    if (told.of === expression && expression !== of) {
      of = told.of ?? "";
      terms = (told.terms ?? []).map((term) => ({ ...term }));
      build();
    }
    // Written, but no expression, or one that the kernel has not read yet: these terms are not its own.
    const other = of !== expression;
    rows.inert = other;
    rows.classList.toggle("ldm-other", other);
    changed();
    note.hidden = other || !expression || terms.length > 0;
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
    if (term.kind === "text") term.fresh = true; // until there is something in it
    else tell();
    send();
    const last = controls[controls.length - 1];
    (last.field ?? last.slider).focus();
  }
  const text = make("button", { type: "button" }, "+ text");
  text.addEventListener("click", () => { add({ kind: "text", text: "", weight: "1", words: [] }); }, { signal });
  const adders = make("div", { class: "ldm-adders" }, text);
  /** @type {HTMLElement[]} */
  const below = [];
  if (model.get("_about").pictures) {
    const sources = makeSources(host, (name) => add({ kind: "image", text: name, weight: "1", words: [] }));
    adders.append(...sources.buttons);
    below.push(...sources.below);
  }
  watch(model, ["_terms", "expression"], follow, signal);
  watch(model, ["_images"], () => rows.querySelectorAll("img").forEach((img) => {
    const fresh = makeThumb(host, img.dataset.name ?? "");
    img.replaceWith(fresh);
  }), signal);
  follow();
  return {
    element: make("div", {}, rows, note, adders, ...below),
    send,
    /** @param {() => void} follower called when a term has changed */
    follow: (follower) => { followers.push(follower); },
    /**
     * How much the words of a text count, by their small letters; null where no term is that text.
     * @param {string} text
     */
    weights(text) {
      if (of !== model.get("expression")) return null; // something else is being written
      const term = terms.find((one) => one.kind === "text" && one.text === text);
      return term ? new Map(term.words.map(([word, share]) => [word.toLowerCase(), share])) : null;
    },
    /** @param {string} text @param {string} word @param {string} weight @param {boolean} [typed] */
    weigh(text, word, weight, typed) {
      for (const term of terms) {
        if (term.kind !== "text" || term.text !== text) continue;
        const at = term.words.findIndex(([known]) => known.toLowerCase() === word.toLowerCase());
        if (at < 0 && weight !== "1") term.words.push([word, weight]);
        else if (weight === "1") term.words.splice(at, at < 0 ? 0 : 1);
        else term.words[at][1] = weight;
      }
      tell(typed);
    },
  };
}
