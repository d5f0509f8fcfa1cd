// @ts-check
// Pictures of a run, decoded off the main thread.

/**
 * @typedef {{width: number, height: number, full: [number, number], lengths: number[][], grades: number[][]}} Series
 * `lengths` and `grades` by sample and index: bytes of a file, and how good it is; a changed file has another grade
 * or length.
 * @typedef {{key: string, index: number, start: number, end: number, version: string}} Place
 */

/** Bytes that pictures of the size they are drawn in may take; else they are enlarged or shrunk at each drawing. */
const MOST_BYTES = 120e6;
const REST = 250; // ms without another size until pictures are made in it

/**
 * The pictures of a few series, decoded nearest to the current step first. Where better ones arrive, the old ones
 * stay until those are decoded.
 */
export class Pictures {
  /** @type {Map<string, {bitmap: ImageBitmap, version: string}>} */
  #ready = new Map();
  /** @type {Map<string, string>} key to the version that was asked for */
  #asked = new Map();
  /** @type {Set<string>} keys with version */
  #failed = new Set();
  /** @type {Place[][]} by sample */
  #places = [];
  #bytes = new Uint8Array(0);
  #running = 0;
  #size = [0, 0];
  #asking = "";
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #resting;
  #sample = 0;
  #step = 0;

  /**
   * @param {() => void} onReady called when a picture has arrived
   * @param {AbortSignal} signal
   */
  constructor(onReady, signal) {
    this.onReady = onReady;
    this.signal = signal;
    signal.addEventListener("abort", () => {
      clearTimeout(this.#resting);
      this.#drop(() => true);
    }, { once: true });
  }

  /**
   * Have pictures in the size they are drawn in, so that drawing one is no more than copying it.
   * @param {number} width
   * @param {number} height
   */
  fit(width, height) {
    const asking = `${width}/${height}`;
    if (asking === this.#asking) return;
    this.#asking = asking;
    clearTimeout(this.#resting);
    const take = () => {
      const count = (this.#places[this.#sample] ?? []).length;
      this.#size = count * width * height * 4 <= MOST_BYTES ? [width, height] : [0, 0];
      if (this.#asked.size) this.#fill();
    };
    if (this.#asked.size) this.#resting = setTimeout(take, REST);
    else take();
  }

  /**
   * Take the files, the first time or anew.
   * @param {Uint8Array} bytes files end to end
   * @param {Record<string, Series>} header
   */
  update(bytes, header) {
    this.#bytes = bytes;
    this.#places = [];
    let at = 0;
    for (const [series, { lengths, grades }] of Object.entries(header)) {
      lengths.forEach((files, sample) =>
        files.forEach((length, index) => {
          const key = `${series}/${sample}/${index}`;
          const version = `${grades[sample][index]}/${length}`;
          (this.#places[sample] ??= []).push({ key, index, start: at, end: at + length, version });
          at += length;
        }),
      );
    }
    const known = new Set(this.#places.flat().map(({ key }) => key));
    this.#drop((key) => !known.has(key));
    this.#fill();
  }

  /** @param {Place} place */
  #version({ version }) {
    return `${version}/${this.#size.join("x")}`;
  }

  /** @param {(key: string) => boolean} chosen */
  #drop(chosen) {
    for (const [key, { bitmap }] of this.#ready) {
      if (!chosen(key)) continue;
      bitmap.close();
      this.#ready.delete(key);
    }
    for (const key of [...this.#asked.keys()]) if (chosen(key)) this.#asked.delete(key);
  }

  /**
   * @param {string} series
   * @param {number} sample
   * @param {number} index
   * @returns {ImageBitmap | undefined} undefined until it is decoded
   */
  get(series, sample, index) {
    return this.#ready.get(`${series}/${sample}/${index}`)?.bitmap;
  }

  /**
   * Which file a picture is from, so that a view knows when to draw it again.
   * @param {string} series
   * @param {number} sample
   * @param {number} index
   */
  version(series, sample, index) {
    return this.#ready.get(`${series}/${sample}/${index}`)?.version ?? "";
  }

  /** Whether all pictures of the sample that is wanted are there, as good as they come. */
  get settled() {
    return (this.#places[this.#sample] ?? []).every(
      (place) => this.#ready.get(place.key)?.version === this.#version(place) || this.#failed.has(`${place.key}/${this.#version(place)}`),
    );
  }

  /**
   * Decode this sample's pictures, the ones around a step first; let go of the other samples'.
   * @param {number} sample
   * @param {number} step
   */
  want(sample, step) {
    if (sample !== this.#sample) this.#drop((key) => key.split("/")[1] !== String(sample));
    this.#sample = sample;
    this.#step = step;
    this.#fill();
  }

  #fill() {
    while (this.#running < 4 && this.#next()) this.#running += 1;
  }

  /** Start decoding the nearest picture that nobody asked for yet. */
  #next() {
    if (this.signal.aborted) return false;
    /** @type {Place | null} */
    let best = null;
    let nearest = Infinity;
    for (const place of this.#places[this.#sample] ?? []) {
      const distance = Math.abs(place.index - this.#step);
      if (distance < nearest && this.#asked.get(place.key) !== this.#version(place)) {
        nearest = distance;
        best = place;
      }
    }
    if (!best) return false;
    this.#asked.set(best.key, this.#version(best));
    void this.#decode(best);
    return true;
  }

  /** @param {Place} place */
  async #decode(place) {
    const { key, start, end } = place;
    const version = this.#version(place);
    const [width, height] = this.#size;
    // A copy, because the bytes may lie in memory that a Blob refuses (shared with the host).
    const blob = new Blob([this.#bytes.slice(start, end)], { type: "image/webp" });
    /** @type {ImageBitmapOptions} */
    const options = width ? { resizeWidth: width, resizeHeight: height, resizeQuality: "high" } : {};
    const bitmap = await createImageBitmap(blob, options).catch(() => null);
    if (!bitmap) this.#failed.add(`${key}/${version}`);
    if (bitmap && !this.signal.aborted && this.#asked.get(key) === version) {
      this.#ready.get(key)?.bitmap.close();
      this.#ready.set(key, { bitmap, version });
    } else {
      bitmap?.close();
    }
    if (!this.signal.aborted) this.onReady();
    if (!this.#next()) this.#running -= 1;
  }
}
