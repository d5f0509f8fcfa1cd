// Pure functions of the views' shared part. Run by test_explorer_views.py with the node that Playwright brings.
import assert from "node:assert/strict";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

const core = await import(pathToFileURL(process.env.LDM_VIZ_CORE).href);

test("figures are written as Python writes them", () => {
  const cases = JSON.parse(process.env.LDM_VIZ_FIGURES);
  for (const [value, text] of cases) assert.equal(core.formatFigure(value), text);
  assert.equal(core.formatFigure(NaN), "NaN");
  assert.equal(core.formatFigure(-Infinity), "−∞");
});

test("ticks are round, within the ends, and about as many as asked for", () => {
  assert.deepEqual(core.ticks(-3.1, 3.4, 3), [-2, 0, 2]);
  assert.deepEqual(core.ticks(0, 1, 5), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.deepEqual(core.ticks(5, 5, 3), [5]);
  assert.deepEqual(core.ticks(NaN, 1, 3), []);
  for (const [low, high] of [[1e-9, 2e-9], [-1e6, 3e7], [0.9975, 0.9999], [-0.3, -0.1]]) {
    const found = core.ticks(low, high, 3);
    assert.ok(found.length >= 1 && found.length <= 6, `${low} ${high}: ${found}`);
    for (const tick of found) assert.ok(tick >= low - 1e-9 * (high - low) && tick <= high + 1e-6 * (high - low));
  }
});

test("logarithmic axes have two ticks or more, powers of ten where there is room", () => {
  const shown = (low, high) => core.powerTicks(Math.log10(low), Math.log10(high)).map((tick) => Number((10 ** tick).toPrecision(6)));
  assert.deepEqual(core.powerTicks(-3.2, 3.1), [-2, 0, 2]);
  assert.deepEqual(shown(0.15, 0.9), [0.2, 0.5]);
  assert.deepEqual(shown(0.8, 30), [1, 10]);
  assert.deepEqual(shown(3, 30), [5, 10, 20]);
  for (const [low, high] of [[2.1, 2.4], [1e-8, 1.3e-8], [700, 1400], [1e-5, 1e5]]) {
    const found = shown(low, high);
    assert.ok(found.length >= 2 && found.length <= 6, `${low} ${high}: ${found}`);
    for (const tick of found) assert.ok(tick >= low && tick <= high, `${low} ${high}: ${tick}`);
  }
});

test("magnitudes are quantiles of the finite sizes", () => {
  assert.equal(core.magnitude([3, -4, NaN, 1, -Infinity, 2], 1), 4);
  assert.equal(core.magnitude([3, -4, 1, 2, 5], 0.5), 3);
  assert.equal(core.magnitude([NaN, Infinity], 0.9), 0);
  assert.equal(core.magnitude([], 0.9), 0);
});

test("colour tables begin and end with their stops", () => {
  const table = core.colourTable(["#000000", "#ff8001", "#010203"]);
  assert.equal(table.length, 256);
  assert.equal(table[0], 0xff000000);
  assert.equal(table[255], 0xff030201);
});

test("values are painted around zero, clipped at the ends, and bad ones get their own pixel", () => {
  const table = Uint32Array.from({ length: 256 }, (_, i) => i);
  const pixels = new Uint32Array(6);
  core.paint(new Float32Array([-9, -1, 0, 1, 9, NaN]), 1, true, table, pixels);
  assert.deepEqual([...pixels], [0, 0, 128, 255, 255, core.BAD_PIXEL]);
  core.paint(new Float32Array([0, 0.5, 1, 2, Infinity, -1]), 1, false, table, pixels);
  assert.deepEqual([...pixels], [0, 128, 255, 255, core.BAD_PIXEL, 0]);
  core.paint(new Float32Array(6), 0, true, table, pixels);
  assert.ok(pixels.every((pixel) => pixel === 128));
});

test("codes become values, bad ones among them", () => {
  for (const { bits, codes, scale, values } of JSON.parse(process.env.LDM_VIZ_CODES)) {
    const array = bits === 8 ? Uint8Array.from(codes) : Uint16Array.from(codes);
    const found = new Float32Array(codes.length);
    core.decodeValues(array, 0, bits, scale, found);
    values.forEach((value, i) => {
      const expected = value === "nan" ? NaN : value === "inf" ? Infinity : value === "-inf" ? -Infinity : value;
      if (Number.isFinite(expected)) {
        assert.ok(Math.abs(found[i] - expected) <= (0.51 * scale) / (2 ** (bits - 1) - 3), `${found[i]} ${expected}`);
      } else {
        assert.ok(Object.is(found[i], expected), `${found[i]} ${expected}`);
      }
    });
  }
});

test("bytes come out of whatever the host hands over", () => {
  const buffer = Uint8Array.from([9, 1, 2, 3, 9]).buffer;
  assert.deepEqual([...core.toBytes(new DataView(buffer, 1, 3))], [1, 2, 3]);
  assert.deepEqual([...core.toBytes(new Uint8Array(buffer, 1, 3))], [1, 2, 3]);
  assert.deepEqual([...core.toBytes(buffer)], [9, 1, 2, 3, 9]);
  assert.equal(core.toBytes(null).length, 0);
});

test("a model is left as it was found once the signal aborts", () => {
  const listeners = new Set();
  const model = { on: (name, f) => listeners.add(name + f), off: (name, f) => listeners.delete(name + f) };
  const controller = new AbortController();
  core.watch(model, ["step", "branch"], () => {}, controller.signal);
  assert.equal(listeners.size, 2);
  controller.abort();
  assert.equal(listeners.size, 0);
});
