// Canvases that keep the size of their boxes, measured when that changes and never while drawing.

export class Surfaces {
  /** @type {WeakMap<Element, [number, number]>} */
  #sizes = new WeakMap();
  /** Whether sizes are known: not before the first frame. */
  measured = false;

  /**
   * @param {() => void} onResize called when a canvas has another size, and so is blank
   * @param {AbortSignal} signal
   */
  constructor(onResize, signal) {
    this.observer = new ResizeObserver((entries) => {
      this.measured = true;
      for (const { target } of entries) this.#sizes.set(target, [target.clientWidth, target.clientHeight]);
      onResize();
    });
    signal.addEventListener("abort", () => this.observer.disconnect(), { once: true });
  }

  /**
   * @template {Element} T
   * @param {T} element
   * @returns {T}
   */
  add(element) {
    this.observer.observe(element);
    return element;
  }

  /**
   * Width and height in CSS pixels; 0 while it is not shown.
   * @param {Element} element
   * @returns {[number, number]}
   */
  size(element) {
    return this.#sizes.get(element) ?? [0, 0];
  }

  /**
   * @param {HTMLCanvasElement} canvas
   * @returns {CanvasRenderingContext2D | null} null while it has no size
   */
  pen(canvas) {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = this.size(canvas).map((side) => Math.round(side * ratio));
    if (!width || !height) return null;
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    return canvas.getContext("2d");
  }
}
