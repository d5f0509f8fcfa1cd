// @ts-check
// Marks on maps: crosses on values that are not finite, dots on those beyond the colours.

/** @param {Float32Array[]} values @param {number} limit */
export function countMarks(values, limit) {
  let bad = 0;
  let beyond = 0;
  for (const one of values) {
    for (const value of one) {
      if (!Number.isFinite(value)) bad += 1;
      else if (Math.abs(value) > limit * 1.0001) beyond += 1;
    }
  }
  const total = values.length * values[0].length;
  return [
    bad ? `${bad} of ${total} values are NaN or infinite (×)` : "",
    beyond ? `${beyond} of ${total} beyond the colours (•)` : "",
  ].filter(Boolean).join(", ");
}

/**
 * Crosses on what is not finite, dots on what lies beyond the colours.
 * @param {CanvasRenderingContext2D} pen
 * @param {Float32Array[]} values by channel
 * @param {{width: number, height: number}} maps
 * @param {number} columns
 * @param {number} rows
 * @param {number} limit
 * @param {string} dot colour that shows on the ends of the colour table
 */
export function drawMarks(pen, values, { width, height }, columns, rows, limit, dot) {
  const w = pen.canvas.width / (columns * width);
  const h = pen.canvas.height / (rows * height);
  // A mark must be seen: where cells are smaller than that, marks are larger than their cells.
  const size = Math.max(Math.min(w, h), 4);
  pen.lineWidth = Math.max(1, size / 10);
  values.forEach((one, k) => {
    const left = (k % columns) * width;
    const top = Math.floor(k / columns) * height;
    let budget = 4000; // marks of a map that is bad all over would only hide it
    for (let i = 0; i < one.length && budget > 0; i++) {
      const value = one[i];
      const beyond = Math.abs(value) > limit * 1.0001;
      if (Number.isFinite(value) && !beyond) continue;
      budget -= 1;
      drawMark(pen, value, (left + (i % width) + 0.5) * w, (top + Math.floor(i / width) + 0.5) * h, size, dot);
    }
  });
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {number} value
 * @param {number} x
 * @param {number} y
 * @param {number} size
 * @param {string} dot
 */
function drawMark(pen, value, x, y, size, dot) {
  const r = size * 0.25;
  pen.beginPath();
  if (Number.isFinite(value)) {
    pen.fillStyle = dot;
    pen.arc(x, y, Math.max(1, size * 0.09), 0, 7);
    pen.fill();
    return;
  }
  pen.strokeStyle = "#fff";
  if (Number.isNaN(value)) {
    pen.moveTo(x - r, y - r);
    pen.lineTo(x + r, y + r);
    pen.moveTo(x - r, y + r);
    pen.lineTo(x + r, y - r);
  } else {
    pen.moveTo(x - r, y);
    pen.lineTo(x + r, y);
    if (value > 0) {
      pen.moveTo(x, y - r);
      pen.lineTo(x, y + r);
    }
  }
  pen.stroke();
}
