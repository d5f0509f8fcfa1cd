import { decodeValues, magnitude } from "./core.js";
// Maps of a run: latents and noise predictions by channel, read from the codes that `pack_maps` in Python writes.

/**
 * @typedef {{name: string, scales?: number[][], sum?: [string, string], sign?: number}} Stack
 * A stack is coded with a scale for each sample and step, or is the sum of two that are; with the sign −1, their
 * difference.
 * @typedef {{shape: [number, number, number], bits: number, factor: number, steps: number, batch: number,
 *   stacks: Stack[]}} MapsHeader
 */

/** At most about this many values go into the colour range of a whole run. */
const RANGE_VALUES = 2 ** 18;

export class Maps {
  /** @type {Map<string, number>} */
  #limits = new Map();
  /** @type {Map<string, Stack & {place: number}>} */
  #stacks = new Map();
  codes = /** @type {Uint8Array | Uint16Array} */ (new Uint8Array(0));
  /** How often other maps were taken, so that a view knows when to draw anew. */
  version = 0;

  /**
   * @param {Uint8Array} bytes
   * @param {MapsHeader} header
   */
  constructor(bytes, header) {
    this.header = header;
    const [channels, height, width] = header.shape;
    this.channels = channels;
    this.height = height;
    this.width = width;
    this.area = this.height * this.width;
    this.one = new Float32Array(this.area);
    this.two = new Float32Array(this.area);
    this.update(bytes, header);
  }

  /**
   * Take other maps of the same shape.
   * @param {Uint8Array} bytes
   * @param {MapsHeader} header
   */
  update(bytes, header) {
    this.header = header;
    this.version += 1;
    this.#limits.clear();
    // Codes of two bytes must be aligned, which a trait's bytes need not be.
    this.codes = header.bits === 16 ? new Uint16Array(bytes.slice().buffer) : bytes;
    let place = 0;
    for (const stack of header.stacks) this.#stacks.set(stack.name, { ...stack, place: stack.scales ? place++ : -1 });
  }

  /** Names of the noise predictions, in order. */
  get branches() {
    return this.header.stacks.map(({ name }) => name).filter((name) => name !== "latents");
  }

  /** @param {string} name */
  has(name) {
    return this.#stacks.has(name);
  }

  /**
   * One channel's values, or their norm over all channels.
   * @param {string} name
   * @param {number} sample
   * @param {number} step
   * @param {number | string} channel
   * @param {Float32Array} out `area` values
   */
  read(name, sample, step, channel, out) {
    if (channel !== "norm") {
      this.#readChannel(name, sample, step, Number(channel), out);
      return;
    }
    out.fill(0);
    for (let c = 0; c < this.channels; c++) {
      this.#readChannel(name, sample, step, c, this.one);
      for (let i = 0; i < this.area; i++) out[i] += this.one[i] * this.one[i];
    }
    for (let i = 0; i < this.area; i++) out[i] = Math.sqrt(out[i]);
  }

  /**
   * @param {string} name @param {number} sample @param {number} step @param {number} channel
   * @param {Float32Array} out
   */
  #readChannel(name, sample, step, channel, out) {
    const stack = this.#stacks.get(name);
    if (!stack) return;
    if (stack.sum) {
      this.#readChannel(stack.sum[0], sample, step, channel, out);
      this.#readChannel(stack.sum[1], sample, step, channel, this.two);
      const sign = stack.sign ?? 1;
      for (let i = 0; i < this.area; i++) out[i] += sign * this.two[i];
      return;
    }
    const { batch, steps, bits } = this.header;
    const start = (((stack.place * batch + sample) * steps + step) * this.channels + channel) * this.area;
    decodeValues(this.codes, start, bits, this.scale(name, sample, step), out);
  }

  /**
   * The largest magnitude that the codes of a step can hold; what lies beyond is known to do so, not by how much.
   * @param {string} name
   * @param {number} sample
   * @param {number} step
   */
  scale(name, sample, step) {
    return this.#stacks.get(name)?.scales?.[sample]?.[step] ?? Infinity;
  }

  /**
   * Half of the difference between two neighbouring codes: values are as exact as that.
   * @param {string} name
   * @param {number} sample
   * @param {number} step
   * @returns {number}
   */
  uncertainty(name, sample, step) {
    const stack = this.#stacks.get(name);
    if (stack?.sum) return this.uncertainty(stack.sum[0], sample, step) + this.uncertainty(stack.sum[1], sample, step);
    return this.scale(name, sample, step) / (2 * (2 ** (this.header.bits - 1) - 3));
  }

  /**
   * Magnitude that gets the strongest colour over the whole run: all but 0.2 % of the values lie within.
   * @param {string} name
   * @param {number} sample
   * @param {number | "norm" | "all"} channel
   */
  limit(name, sample, channel) {
    const key = `${name}/${sample}/${channel}`;
    let limit = this.#limits.get(key);
    if (limit === undefined) {
      const channels = channel === "all" ? Array.from({ length: this.channels }, (_, c) => c) : [channel];
      const { steps } = this.header;
      const stride = Math.max(1, Math.ceil((steps * this.area * channels.length) / RANGE_VALUES));
      const count = Math.ceil(steps / stride);
      const all = new Float32Array(count * this.area * channels.length);
      let at = 0;
      for (let k = 0; k < count; k++) {
        for (const c of channels) {
          this.read(name, sample, k * stride, c, all.subarray(at, at + this.area));
          at += this.area;
        }
      }
      limit = magnitude(all, 0.998);
      this.#limits.set(key, limit);
    }
    return limit;
  }
}
