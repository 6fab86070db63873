// The burn-up: devices by state over time, stacked from below, with the plan, the forecast and what happened.
import { css, onTheme } from "./colours.js";
import { clock, now } from "./times.js";

// From the top of the stack to its bottom: each area is drawn over the one before, down to zero.
const LAYERS = ["skipped", "downloading", "installing", "failed", "succeeded"];
const TOKEN = { succeeded: "success" };
const AGAIN = 120_000;
const SHORT = { started: "started", pause: "paused", resume: "resumed", trip: "guardrail trips" }; // the events say more
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];
const AHEAD = 6; // times the past: that much of the time axis at most
const PLAN = 6, LOW = 7, HIGH = 8;
const pixels = (size) => Math.round(size * parseFloat(getComputedStyle(document.documentElement).fontSize) / 16);
const said = (number) => number.toLocaleString("en");

export class Chart {
  #box; #note; #read; #total; #plot = null; #data = null; #timer = 0; #drawn = 0; #retry = 2000;

  constructor(box) {
    this.#box = box;
    this.#note = box.querySelector(".chart-note");
    this.#read = document.getElementById("burnup-read");
    this.#total = Number(box.dataset.total);
    setTimeout(() => { if (!this.#data && !this.#note.textContent) this.#note.textContent = "…"; }, 300);
    new ResizeObserver(() => this.resize()).observe(box);
    onTheme(() => this.#draw());
    this.#fetch();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.#box;
    if (!width) return;
    if (!this.#plot) this.#draw();
    else if (this.#plot.width !== width || this.#plot.height !== height) this.#plot.setSize({ width, height });
  }

  /** Add the newest counts, from the stream. `at`: ISO time; `counts`: devices by state. */
  add(at, counts) {
    if (!this.#data) return;
    const points = this.#data.points;
    const point = {
      at, pending: counts.PENDING, downloading: counts.DOWNLOADING, installing: counts.INSTALLING,
      succeeded: counts.SUCCESS, failed: counts.FAILED, skipped: counts.SKIPPED, live: true,
    };
    if (points.length > 1 && points.at(-1).live && points.at(-2).live
        && Date.parse(at) - Date.parse(points.at(-2).at) < 2000) points.pop();
    points.push(point);
    if (performance.now() - this.#drawn > 1000) this.#draw();
  }

  /** Something happened: read the whole series again, not all pages at the same moment. */
  soon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fetch(), 1000 + Math.random() * 2000);
  }

  async #fetch() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => document.hidden ? this.soon() : this.#fetch(), AGAIN * (1 + Math.random()));
    try {
      const answer = await fetch(this.#box.dataset.src);
      if (!answer.ok) throw new Error(answer.status);
      this.#data = await answer.json();
      this.#retry = 2000;
      this.#draw();
    } catch {
      if (!this.#data) this.#note.textContent = "The series could not be read. It is asked for again.";
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#fetch(), this.#retry * (0.75 + Math.random() / 2));
      this.#retry = Math.min(this.#retry * 2, AGAIN);
    }
  }

  #draw() {
    const { points } = this.#data ?? { points: [] };
    const { clientWidth: width, clientHeight: height } = this.#box;
    if (points.length === 0 || !window.uPlot) return this.#empty();
    this.#note.hidden = true;
    this.#summary();
    if (!width) return;
    this.#drawn = performance.now();
    const data = this.#series();
    this.#plot?.destroy();
    this.#plot = new window.uPlot(this.#options(width, height, data), data, this.#box);
  }

  #empty() {
    this.#note.hidden = false;
    this.#note.textContent = "Nothing was sent yet.";
  }

  /** Columns for uPlot: times in seconds, the layers from the top, plan, and both edges of the forecast. */
  #series() {
    const { points, plan, forecast } = this.#data;
    const columns = new Map();
    const at = (iso) => {
      const second = Date.parse(iso) / 1000;
      if (!columns.has(second)) columns.set(second, new Array(HIGH + 1).fill(null));
      return columns.get(second);
    };
    for (const point of points) {
      const row = at(point.at);
      let sum = 0;
      for (const name of [...LAYERS].reverse()) row[LAYERS.indexOf(name) + 1] = sum += point[name];
    }
    for (const each of plan ?? []) at(each.at)[PLAN] = each.devices;
    for (const each of forecast?.band ?? []) [at(each.at)[LOW], at(each.at)[HIGH]] = [each.low, each.high];
    const times = [...columns.keys()].sort((a, b) => a - b);
    return [times, ...Array.from({ length: HIGH }, (_, index) => times.map((each) => columns.get(each)[index + 1]))];
  }

  #span(data) {
    const first = Date.parse(this.#data.points[0].at) / 1000;
    const end = Date.parse(this.#data.points.at(-1).at) / 1000;
    if (this.#box.dataset.final === "true") return [first, Math.max(end, first + 1)];
    const last = Math.max(end, first + 60);
    const farthest = data[0].at(-1);
    const newest = this.#data.points.at(-1);
    if (LAYERS.every((name) => !newest[name])) return [first, Math.max(last, farthest)]; // nothing was sent: all is ahead
    return [first, Math.max(last, Math.min(farthest, first + AHEAD * (last - first)))]; // the whole campaign, unless the past became a sliver
  }

  #top(data, [from, to]) {
    let most = 0;
    // What was skipped is drawn up to the edge: it would make everything that was sent to a flat line.
    for (let column = 2; column <= HIGH; column += 1) {
      for (let row = 0; row < data[0].length; row += 1) {
        if (data[0][row] >= from && data[0][row] <= to && data[column][row] > most) most = data[column][row];
      }
      if (column >= PLAN) most = Math.max(most, between(data[0], data[column], to)); // where the line leaves the picture
    }
    return most > this.#total * 0.4 ? this.#total : Math.min(this.#total, Math.max(most * 1.15, 5));
  }

  #options(width, height, data) {
    const ink = css("ink"), muted = css("muted"), line = css("line");
    const range = this.#span(data), top = this.#top(data, range);
    const axis = { stroke: muted, font: `${pixels(12)}px system-ui, sans-serif`, grid: { stroke: line, width: 1 }, ticks: { show: false } };
    return {
      width, height, padding: [pixels(16), pixels(32), 0, 0], legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { setScale: false, x: false, y: false } },
      tzDate: (seconds) => window.uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: { x: { time: true, range: () => range }, y: { range: () => [0, top] } },
      axes: [
        { ...axis, size: pixels(22), gap: 4, grid: { show: false }, space: pixels(90), incrs: STEPS, values: (_, ticks) => ticks.map((each) => clock(each * 1000, range[1] - range[0] < 600)) },
        { ...axis, size: pixels(64), gap: 6, space: 40, values: (_, ticks) => ticks.map((each) => Number.isInteger(each) ? said(each) : "") },
      ],
      series: [
        {},
        ...LAYERS.map((name) => ({ fill: (plot) => area(plot.ctx, name), width: 0, spanGaps: true, points: { show: false } })),
        { stroke: ink, width: 1.5, dash: [6, 4], spanGaps: true, points: { show: false } },
        { stroke: muted, width: 1, spanGaps: true, points: { show: false } },
        { stroke: muted, width: 1, spanGaps: true, points: { show: false } },
      ],
      bands: [{ series: [HIGH, LOW], fill: css("muted", 0.22) }],
      hooks: { draw: [(plot) => this.#markers(plot)], setCursor: [(plot) => this.#point(plot)] },
    };
  }

  #markers(plot) {
    const { ctx, bbox } = plot;
    const scale = devicePixelRatio;
    const taken = []; // no text over another one: they are all in the list of events, and a trip goes first
    ctx.save();
    ctx.font = `${pixels(11) * scale}px system-ui, sans-serif`;
    ctx.textBaseline = "bottom";
    ctx.textAlign = "left";
    const urgent = (each) => ["trip", "ended"].indexOf(each.kind) + 1 || 3;
    for (const each of [...(this.#data.markers ?? [])].sort((a, b) => urgent(a) - urgent(b))) {
      const x = Math.max(bbox.left, plot.valToPos(Date.parse(each.at) / 1000, "x", true));
      if (x > bbox.left + bbox.width) continue;
      const trip = each.kind === "trip";
      ctx.strokeStyle = ctx.fillStyle = css(trip ? "danger" : "muted");
      ctx.lineWidth = (trip ? 2 : 1) * scale;
      ctx.setLineDash(trip ? [] : [2 * scale, 3 * scale]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      const text = SHORT[each.kind] ?? /wave [^;:]+ opens|^aborted|^completed/i.exec(each.text)?.[0].toLowerCase() ?? each.text.replace(/\.$/, "");
      const wide = ctx.measureText(text).width;
      const left = Math.max(bbox.left, Math.min(x, bbox.left + bbox.width - wide));
      if (taken.some(([from, to]) => left < to && left + wide > from)) continue;
      ctx.fillText(text, left, bbox.top - 4 * scale);
      taken.push([left - 8 * scale, left + wide + 8 * scale]);
    }
    ctx.restore();
  }

  #point(plot) {
    const { idx } = plot.cursor;
    if (idx == null) return void (this.#read.textContent = "");
    const at = plot.data[0][idx] * 1000;
    const point = this.#data.points.find((each) => Date.parse(each.at) === at);
    const plan = plot.data[PLAN][idx];
    const parts = point
      ? [`${said(point.succeeded)} succeeded`, `${said(point.failed)} failed`,
        `${said(point.downloading + point.installing)} in progress`, ...(point.skipped ? [`${said(point.skipped)} skipped`] : [])]
      : [];
    if (plan != null) parts.push(`plan ${said(Math.round(plan))}`);
    if (plot.data[LOW][idx] != null) parts.push(`forecast ${said(Math.round(plot.data[LOW][idx]))} to ${said(Math.round(plot.data[HIGH][idx]))}`);
    this.#read.textContent = `${clock(at, true)} UTC: ${parts.join(", ")}`;
  }

  /** What the picture says, for those who do not see it. */
  #summary() {
    const { points, forecast, markers } = this.#data;
    const first = points[0], last = points.at(-1);
    const events = (markers ?? []).map((each) => `${clock(Date.parse(each.at))} ${each.text}`).join("; ");
    this.#box.setAttribute("role", "img");
    this.#box.setAttribute("aria-label",
      `Burn-up from ${clock(Date.parse(first.at))} to ${clock(Math.min(Date.parse(last.at), now()))} UTC: `
      + `${said(last.succeeded)} of ${said(this.#total)} devices succeeded, ${said(last.failed)} failed, `
      + `${said(last.downloading + last.installing)} in progress. ${forecast?.text ?? ""}${events ? ` Events: ${events}.` : ""}`);
  }
}

/** The height of a line of known points at a time between two of them; 0 outside of it. */
function between(times, values, at) {
  const known = times.map((_, index) => index).filter((index) => values[index] != null);
  const after = known.find((index) => times[index] >= at), before = known.findLast((index) => times[index] <= at);
  if (after === undefined || before === undefined) return 0;
  const part = after === before ? 0 : (at - times[before]) / (times[after] - times[before]);
  return values[before] + part * (values[after] - values[before]);
}

/** The fill of an area: its colour, with the lines of its state. */
function area(ctx, name) {
  const token = TOKEN[name] ?? name;
  if (name === "succeeded" || name === "installing") return css(token);
  const size = Math.round(4 * devicePixelRatio);
  const tile = tileOf(size);
  const pen = tile.getContext("2d");
  pen.fillStyle = css(token);
  pen.fillRect(0, 0, size, size);
  pen.strokeStyle = css(`${token}-letter`, name === "downloading" ? 0.45 : 0.5);
  pen.lineWidth = Math.max(1, devicePixelRatio);
  pen.beginPath();
  if (name === "downloading") { pen.moveTo(size / 2, 0); pen.lineTo(size / 2, size); }
  else if (name === "skipped") { pen.moveTo(0, size / 2); pen.lineTo(size, size / 2); }
  else for (const shift of [-size, 0, size]) { pen.moveTo(shift, size); pen.lineTo(shift + size, 0); }
  pen.stroke();
  return ctx.createPattern(tile, "repeat");
}

function tileOf(size) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  return canvas;
}
