import { clamp, formatFigure, make, makeSvg, powerTicks, setText, ticks, toBytes } from "./core.js";
import { channelColour, onScrub } from "./panels.js";
// Statistics over the steps, as small charts with the cursor on the current step and values on hover.

/** @typedef {import("./panels.js").Context} Context */
/** @typedef {import("./panels.js").ChartHeader} ChartHeader */
/** @typedef {import("./panels.js").Shown} Shown */

/** @param {Context} context */
export function makeCharts(context) {
  const { model, header } = context;
  const bytes = toBytes(model.get("_charts"));
  const numbers = new Float32Array(bytes.slice().buffer);
  /** @type {ReturnType<typeof makeChart>[]} */
  const charts = [];
  let start = 0;
  for (const chart of header.charts) {
    charts.push(makeChart(context, chart, numbers, start));
    start += header.batch * chart.series.length * chart.points;
  }
  const element = make("div", { class: "ldm-charts", "data-panel": "statistics" });
  element.append(...charts.map((chart) => chart.element));
  return {
    element,
    /** @param {Shown} state */
    draw(state) {
      if (element.hidden) return;
      for (const chart of charts) chart.draw(state);
    },
  };
}

/**
 * One small chart: curves over the steps, a cursor on the current one, values on hover.
 * @param {Context} context
 * @param {ChartHeader} chart
 * @param {Float32Array} numbers
 * @param {number} start where this chart's values begin
 */
function makeChart({ model, header, signal, move }, chart, numbers, start) {
  const { series, points, kind, log } = chart;
  // The last of the series may be what the schedule expects: a dashed line of its own.
  const own = chart.expected ? series.length - 1 : series.length;
  const many = (kind === "channels" || kind === "runs") && own > 1;
  const most = Math.max(points - 1, 1);
  const readout = make("span", { class: "ldm-readout" });
  const drawing = makeSvg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  // The cursor and its dots lie in a drawing of their own: what moves there lays out nothing else.
  const cursor = makeSvg("svg", { class: "ldm-cursor", "aria-hidden": "true" });
  const needle = makeSvg("line", { y1: 0, y2: "100%" });
  const dots = Array.from({ length: kind === "channels" && own > 8 ? 0 : own }, () => makeSvg("circle", { r: 4 }));
  cursor.append(needle, ...dots);
  const labels = make("div", { class: "ldm-ticks", "aria-hidden": "true" });
  const plot = make("div", { class: "ldm-plot" });
  plot.append(labels, drawing, cursor);
  // Of many channels only the ends of their range are told. The texts are made once, and then changed.
  const ranged = kind === "channels" && own > 6;
  const cells = Array.from({ length: (ranged ? 1 : own) + (series.length - own) }, () => document.createTextNode(""));
  cells.forEach((cell, i) => {
    if (!ranged && i < own && many) {
      const name = series[i];
      const item = make("b", { class: "ldm-swatch", title: kind === "runs" ? name : `channel ${name}` }, make("i", {}, kind === "runs" ? `${i}` : name), cell);
      item.style.setProperty("--ldm-swatch", channelColour(i, own));
      readout.append(item);
    } else if (i === cells.length - 1 && own < series.length) {
      readout.append(make("span", { title: "what the schedule expects" }, cell));
    } else {
      readout.append(make("b", {}, cell));
    }
  });
  const where = make("em");
  const heading = make("h3", {}, chart.title, where);
  if (chart.hint) heading.title = chart.hint;
  const element = make("figure", { class: "ldm-chart" }, heading, readout, plot);
  const colour = (/** @type {number} */ i) =>
    many ? channelColour(i, own) : "var(--ldm-accent)";
  dots.forEach((dot, i) => { dot.style.fill = colour(i); });

  let low = 0;
  let high = 1;
  let drawn = "";
  let sample = 0;
  let step = 0;
  let hover = -1;
  /** @param {number} i @param {number} at */
  const value = (i, at) => numbers[start + (sample * series.length + i) * points + at];
  /** As many decimals as the chart's span needs, so that digits stay in place while the cursor moves. */
  const figure = (/** @type {number} */ number) => {
    const decimals = Math.ceil(1.3 - Math.log10(high - low));
    if (Number.isNaN(number)) return "–";
    if (log || !Number.isFinite(number) || decimals > 5) return formatFigure(number);
    const text = Math.abs(number).toFixed(Math.max(decimals, 0));
    return number < 0 && Number(text) ? `−${text}` : text;
  };
  /** @param {number} number */
  const height = (number) => {
    const shown = log ? Math.log10(number) : number;
    return 100 - ((shown - low) / (high - low)) * 100;
  };

  function build() {
    low = Infinity;
    high = -Infinity;
    for (let i = 0; i < series.length; i++) {
      for (let at = 0; at < points; at++) {
        const number = log ? Math.log10(value(i, at)) : value(i, at);
        if (!Number.isFinite(number)) continue;
        low = Math.min(low, number);
        high = Math.max(high, number);
      }
    }
    if (chart.zero) low = Math.min(low, 0);
    if (low > high) [low, high] = [0, 1];
    const margin = (high - low) * 0.08 || Math.abs(high) * 0.05 || 0.5;
    low -= margin;
    high += margin;
    const marks = (log ? powerTicks(low, high) : ticks(low, high, 3)).filter((tick) => tick > low && tick < high);
    const lines = marks.map((tick) => {
      const y = 100 - ((tick - low) / (high - low)) * 100;
      return makeSvg("path", { class: tick === 0 && !log ? "ldm-zero" : "ldm-grid", d: `M0 ${y}H100` });
    });
    labels.replaceChildren(
      ...marks.map((tick) => {
        const power = log && marks.every(Number.isInteger);
        const label = make("span", {}, power ? formatPower(tick) : formatTick(log ? 10 ** tick : tick));
        label.style.top = `${100 - ((tick - low) / (high - low)) * 100}%`;
        return label;
      }),
    );
    /** @type {SVGElement[]} */
    const shapes = [];
    if (kind === "band") {
      const ends = [];
      for (let at = 0; at < points; at++) if (Number.isFinite(value(0, at))) ends.push(at);
      const path = [...ends.map((at) => [at, 1]), ...ends.reverse().map((at) => [at, 0])]
        .map(([at, i], k) => `${k ? "L" : "M"}${(at / most) * 100} ${height(value(i, at))}`)
        .join("");
      shapes.push(makeSvg("path", { class: "ldm-band", d: path }));
    }
    const chosen = model.get("channel");
    series.forEach((_, i) => {
      const shape = makeSvg("path", { class: "ldm-line", d: curve(i) });
      if (i >= own) shape.classList.add("ldm-expected");
      else shape.style.stroke = colour(i);
      if (many && i < own) {
        if (kind === "channels") shape.classList.add(chosen === i ? "ldm-chosen" : "ldm-other");
      }
      shapes.push(shape);
    });
    const mark = header.marks?.[sample] ?? -1;
    if (mark >= 0) lines.push(makeSvg("path", { class: "ldm-parted", d: `M${(mark / most) * 100} 0V100` }));
    drawing.replaceChildren(...lines, ...shapes);
  }

  /** @param {number} i */
  function curve(i) {
    let path = "";
    let pen = "M";
    for (let at = 0; at < points; at++) {
      const y = height(value(i, at));
      if (!Number.isFinite(y)) {
        pen = "M";
        continue;
      }
      path += `${pen}${((at / most) * 100).toFixed(2)} ${y.toFixed(2)}`;
      pen = "L";
    }
    return path;
  }

  function point() {
    const at = clamp(hover < 0 ? step : hover, 0, points - 1);
    const x = `${(at / most) * 100}%`;
    needle.setAttribute("x1", x);
    needle.setAttribute("x2", x);
    dots.forEach((dot, i) => {
      const y = height(value(i, at));
      dot.setAttribute("visibility", Number.isFinite(y) ? "visible" : "hidden");
      dot.setAttribute("cx", x);
      dot.setAttribute("cy", `${y || 0}%`);
    });
    cursor.classList.toggle("ldm-hovering", hover >= 0);
    setText(where, hover < 0 ? "" : hover >= header.steps ? "end" : `step ${hover}`);
    const shown = (/** @type {number} */ i) => figure(value(i, at));
    if (ranged) {
      const all = series.slice(0, own).map((_, i) => value(i, at));
      cells[0].data = `${figure(Math.min(...all))} … ${figure(Math.max(...all))}`;
    } else {
      for (let i = 0; i < own; i++) cells[i].data = shown(i);
    }
    if (own < series.length) cells[cells.length - 1].data = `╌ ${shown(own)}`;
  }

  onScrub(plot, (share) => move(share * most), signal);
  plot.addEventListener(
    "pointermove",
    (event) => {
      const box = plot.getBoundingClientRect();
      hover = event.buttons ? -1 : clamp(Math.round(((event.clientX - box.left) / box.width) * most), 0, points - 1);
      point();
    },
    { signal },
  );
  plot.addEventListener("pointerleave", () => { hover = -1; point(); }, { signal });

  return {
    element,
    /** @param {{step: number, sample: number}} state */
    draw(state) {
      ({ sample, step } = state);
      const key = `${sample}/${model.get("channel")}`;
      if (key !== drawn) {
        drawn = key;
        build();
      }
      point();
    },
  };
}

/** @param {number} power */
function formatPower(power) {
  const digits = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  if (power === 0) return "1";
  return `10${power < 0 ? "⁻" : ""}${[...String(Math.abs(power))].map((d) => digits[Number(d)]).join("")}`;
}

/** @param {number} value */
function formatTick(value) {
  return String(Number(value.toPrecision(6))).replace("-", "−");
}

