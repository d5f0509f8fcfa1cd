import { make, setText, watch } from "./core.js";
import { decimal, placeSlider, weightText } from "./terms.js";
// The tokens of the texts, with what is cut, and how much each word counts.

/** @typedef {import("./thumbs.js").Host} Host */
/** @typedef {import("./terms.js").Terms} Terms */
/** @typedef {{word: string, pieces: [string, boolean][]}} Word */

/**
 * @param {Host} host
 * @param {Terms} terms
 */
export function makeTokens({ model, signal }, terms) {
  const lines = make("div");
  const hint = make("p", { class: "ldm-hint" }, "Choose a word to change how much it counts.");
  const notes = make("ul", { class: "ldm-notes" });
  const element = make("section", { class: "ldm-tokens" }, make("h3", {}, "Tokens"), lines, hint, notes);
  /** @type {{text: string, word: string} | null} */
  let chosen = null;
  /** @type {{text: string, word: string, button: HTMLButtonElement, badge: HTMLElement}[]} */
  let chips = [];
  let drawn = "";

  const name = make("span");
  const slider = make("input", { type: "range", min: 0, max: 2, step: 0.05 });
  const number = make("input", { type: "number", step: 0.05 });
  const reset = make("button", { type: "button" }, "as usual");
  const editor = make("div", { class: "ldm-weigh" }, name, slider, number, reset);

  /** @param {string} weight @param {boolean} [typed] */
  function weigh(weight, typed) {
    if (chosen) terms.weigh(chosen.text, chosen.word, weight, typed);
  }
  slider.addEventListener("input", () => weigh(weightText(Number(slider.value))), { signal });
  slider.addEventListener("change", terms.send, { signal });
  number.addEventListener("input", () => { if (number.value) weigh(weightText(Number(number.value)), true); }, { signal });
  number.addEventListener("change", terms.send, { signal });
  reset.addEventListener("click", () => { weigh("1"); terms.send(); }, { signal });

  /** Show what each word counts now. */
  function follow() {
    if (chosen && !terms.weights(chosen.text)) chosen = null;
    for (const { text, word, button, badge } of chips) {
      const weights = terms.weights(text);
      const weight = weights?.get(word.toLowerCase()) ?? "1";
      button.disabled = !word || !weights;
      button.setAttribute("aria-pressed", String(chosen?.text === text && chosen.word.toLowerCase() === word.toLowerCase()));
      button.classList.toggle("ldm-more", Number(weight) > 1);
      button.classList.toggle("ldm-less", Number(weight) < 1);
      setText(badge, weight === "1" ? "" : `×${weight}`);
    }
    hint.hidden = !chips.some(({ button }) => !button.disabled);
    editor.hidden = !chosen;
    if (!chosen) return;
    const weight = terms.weights(chosen.text)?.get(chosen.word.toLowerCase()) ?? "1";
    setText(name, `“${chosen.word}” counts`);
    slider.setAttribute("aria-label", `How much ${chosen.word} counts`);
    number.setAttribute("aria-label", `How much ${chosen.word} counts, as a number`);
    placeSlider(slider, weight);
    if (document.activeElement !== number) number.value = decimal(weight);
    reset.disabled = weight === "1";
  }

  /** @param {{text: string, words: Word[]}} shown */
  function makeLine({ text, words }) {
    const line = make("p");
    for (const { word, pieces } of words) {
      const badge = make("b");
      const button = make("button", { type: "button" }, ...pieces.map(([piece, kept]) =>
        make(kept ? "span" : "s", kept ? {} : { title: "beyond what the encoder reads: cut off" }, piece)), badge);
      button.addEventListener("click", () => {
        const again = chosen?.text === text && chosen.word === word;
        chosen = again ? null : { text, word };
        line.after(editor);
        follow();
      }, { signal });
      const kept = pieces.some(([, there]) => there);
      chips.push({ text, word: kept ? word : "", button, badge });
      line.append(button);
    }
    return line;
  }

  function build() {
    /** @type {{text: string, words: Word[]}[]} */
    const texts = model.get("_facts")?.tokens ?? [];
    notes.replaceChildren(...(model.get("_facts")?.notes ?? []).map((/** @type {string} */ note) => make("li", {}, note)));
    const now = JSON.stringify(texts);
    if (now !== drawn) {
      drawn = now;
      chips = [];
      element.hidden = !texts.some(({ words }) => words.length);
      lines.replaceChildren(...texts.map(makeLine), editor);
      chosen = null;
    }
    follow();
  }
  watch(model, ["_facts"], build, signal);
  terms.follow(follow);
  element.hidden = true;
  build();
  return element;
}
