// One picture of all devices in the order of sending: a cell a device, or a row a run of devices. Never an element each.
import { onTheme, rgb } from "./colours.js";

const NAMES = ["pending", "downloading", "installing", "success", "failed", "skipped"];
const WORDS = ["pending", "downloading", "installing", "succeeded", "failed", "skipped"];
const FAILED = 4;
const ORDER = [3, FAILED, 2, 1, 5, 0]; // within a row that stands for many devices
const said = (number) => number.toLocaleString("en");

/** Cells of a picture of `devices`, `width` × `height` px at most: their size, and how many fit. */
export function layout(devices, width, height) {
  const ideal = Math.floor(Math.sqrt((width * height) / Math.max(devices, 1)));
  let cell = Math.min(Math.max(ideal, 2), 14);
  while (cell > 2 && Math.floor(width / cell) * Math.floor(height / cell) < devices) cell -= 1;
  const columns = Math.max(1, Math.floor(width / cell));
  const most = Math.max(1, Math.floor(height / cell));
  const single = columns * most >= devices;
  return { cell, columns, rows: single ? Math.ceil(devices / columns) : most, single, gap: cell >= 6 ? 1 : 0 };
}

/** Cells of a row for each state: shares by largest remainder, and at least one for failed devices. */
export function share(counts, cells) {
  const total = counts.reduce((sum, each) => sum + each, 0);
  if (!total) return counts.map(() => 0);
  const exact = counts.map((each) => (each * cells) / total);
  const given = exact.map(Math.floor);
  let left = cells - given.reduce((sum, each) => sum + each, 0);
  for (const state of exact.map((_, index) => index).sort((a, b) => (exact[b] % 1) - (exact[a] % 1))) {
    if (left-- > 0) given[state] += 1;
  }
  if (counts[FAILED] && !given[FAILED]) {
    given[given.indexOf(Math.max(...given))] -= 1;
    given[FAILED] = 1;
  }
  return given;
}

export class DeviceField {
  #box; #canvas; #read; #root; #states = new Uint8Array(0); #base = new Uint8Array(0); #differs = 0;
  #generation = ""; #sequence = 0; #plan = null; #image = null; #tiles = []; #dirty = new Set(); #frame = 0; #cursor = -1; #mark = null;
  #waiting = []; #loading = false; #asked = 0; #total = []; #said = 0; #retry = 2000;

  /** `root` receives the events of the stream, and is told how many devices differ from the table. */
  constructor(box, root) {
    [this.#box, this.#root] = [box, root];
    this.#canvas = box.querySelector("canvas");
    this.#read = document.getElementById("field-read");
    root.addEventListener("rollwave:field", (event) => this.#changes(event.detail));
    new ResizeObserver(() => this.resize()).observe(box);
    onTheme(() => this.#layout());
    this.#canvas.addEventListener("keydown", (event) => this.#key(event));
    this.#canvas.addEventListener("pointerdown", (event) => this.#point(event));
    this.#canvas.addEventListener("blur", () => this.#mark?.remove());
    this.#load();
  }

  resize() {
    const scale = Math.max(1, Math.round(devicePixelRatio));
    if (this.#box.clientWidth && (this.#box.clientWidth !== this.#plan?.width || scale !== this.#plan?.scale)) this.#layout();
  }

  /** The table was read just now: count changes from here on. */
  remember() {
    this.#base = this.#states.slice();
    this.#differs = 0;
    this.#announce();
  }

  async #load() {
    if (this.#loading) return;
    this.#loading = true;
    try {
      const answer = await fetch(this.#box.dataset.src);
      if (!answer.ok) throw new Error(answer.status);
      const states = new Uint8Array(await answer.arrayBuffer());
      this.#generation = answer.headers.get("Rollwave-Generation") ?? "";
      this.#sequence = Number(answer.headers.get("Rollwave-Sequence"));
      const first = this.#base.length === 0;
      this.#states = states;
      this.#total = [0, 0, 0, 0, 0, 0];
      for (const each of states) this.#total[each] += 1;
      if (first || this.#base.length !== states.length) this.remember();
      const waiting = this.#waiting;
      this.#waiting = [];
      this.#loading = false;
      this.#retry = 2000;
      if (this.#read.dataset.failed) this.#read.textContent = this.#read.dataset.failed = "";
      for (const each of waiting) this.#changes(each);
      this.#layout();
    } catch {
      this.#waiting = [];
      this.#read.textContent = this.#read.dataset.failed = "The picture of the devices could not be read. It is asked for again.";
      setTimeout(() => { this.#loading = false; this.#load(); }, this.#retry * (0.75 + Math.random() / 2));
      this.#retry = Math.min(this.#retry * 2, 60_000);
    }
  }

  #changes(news) {
    if (this.#loading) return void this.#waiting.push(news);
    const { generation, since, sequence, runs } = news;
    if (generation === this.#generation && this.#sequence >= sequence) return; // it was read later than these changes
    if (generation !== this.#generation || this.#sequence < since) return void this.#load();
    this.#sequence = sequence;
    for (const [first, count, state] of runs) {
      for (let at = first; at < Math.min(first + count, this.#states.length); at += 1) {
        const before = this.#states[at] !== this.#base[at];
        this.#total[this.#states[at]] -= 1;
        this.#total[state] += 1;
        this.#states[at] = state;
        this.#differs += Number(state !== this.#base[at]) - Number(before);
        if (this.#plan) this.#dirty.add(this.#plan.single ? at : this.#row(at));
      }
    }
    this.#announce();
    this.#soon();
    this.#said ||= setTimeout(() => { this.#said = 0; this.#summary(); }, 1000);
  }

  #announce() {
    this.#root.dispatchEvent(new CustomEvent("rollwave:differs", { detail: this.#differs }));
  }

  #layout() {
    const width = this.#box.clientWidth, devices = this.#states.length;
    if (!width || !devices) return;
    const height = matchMedia("(max-width: 720px)").matches ? 160 : 280;
    const scale = Math.max(1, Math.round(devicePixelRatio));
    this.#plan = { ...layout(devices, width, height), width, scale };
    const { cell, columns, rows } = this.#plan;
    this.#canvas.width = columns * cell * scale;
    this.#canvas.height = rows * cell * scale;
    this.#canvas.style.width = `${columns * cell}px`;
    this.#canvas.style.height = `${rows * cell}px`;
    this.#image = new ImageData(this.#canvas.width, this.#canvas.height);
    this.#tiles = NAMES.map((name, state) => tile(name, state, cell * scale, this.#plan.gap * scale, scale));
    this.#dirty = new Set(Array.from({ length: this.#plan.single ? devices : rows }, (_, index) => index));
    this.#summary();
    this.#soon();
    if (this.#cursor >= 0) this.#place();
  }

  #soon() {
    if (!this.#frame && this.#plan) this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    const { columns, single } = this.#plan;
    for (const each of this.#dirty) {
      if (single) this.#cell(each % columns, Math.floor(each / columns), this.#states[each]);
      else {
        const cells = share(this.#counts(each), columns);
        let x = 0;
        for (const state of ORDER) for (let left = cells[state]; left > 0; left -= 1) this.#cell(x++, each, state);
      }
    }
    this.#dirty.clear();
    this.#canvas.getContext("2d").putImageData(this.#image, 0, 0);
  }

  #cell(column, row, state) {
    const size = this.#plan.cell * this.#plan.scale, pixels = new Uint32Array(this.#image.data.buffer);
    const source = this.#tiles[state] ?? this.#tiles[0];
    for (let y = 0; y < size; y += 1) {
      pixels.set(source.subarray(y * size, (y + 1) * size), (row * size + y) * this.#image.width + column * size);
    }
  }

  #row(at) {
    return Math.min(this.#plan.rows - 1, Math.floor(((at + 1) * this.#plan.rows - 1) / this.#states.length));
  }

  #run(row) {
    const devices = this.#states.length, { rows } = this.#plan;
    return [Math.floor((row * devices) / rows), Math.floor(((row + 1) * devices) / rows)];
  }

  #counts(row) {
    const counts = [0, 0, 0, 0, 0, 0], [first, end] = this.#run(row);
    for (let at = first; at < end; at += 1) counts[this.#states[at]] += 1;
    return counts;
  }

  #summary() {
    const counts = this.#total;
    const parts = ORDER.filter((state) => counts[state]).map((state) => `${said(counts[state])} ${WORDS[state]}`);
    this.#canvas.setAttribute("aria-label", `${said(this.#states.length)} devices in the order of sending: ${parts.join(", ")}`);
  }

  #key(event) {
    if (!this.#plan) return;
    const { columns, rows, single } = this.#plan, last = (single ? this.#states.length : rows) - 1;
    const step = single ? columns : 1;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -step, ArrowDown: step, Home: -Infinity, End: Infinity };
    if (event.key === "Enter" && this.#read.querySelector("a")) return this.#read.querySelector("a").click();
    if (!(event.key in moves)) return;
    event.preventDefault();
    const from = this.#cursor < 0 ? 0 : this.#cursor + moves[event.key];
    this.#move(Math.min(Math.max(from, 0), last));
  }

  #point(event) {
    if (!this.#plan) return;
    const { cell, columns, single } = this.#plan, box = this.#canvas.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top) / cell), column = Math.floor((event.clientX - box.left) / cell);
    const at = single ? row * columns + column : row;
    if (at >= 0 && at < (single ? this.#states.length : this.#plan.rows)) this.#move(at);
  }

  #move(cursor) {
    this.#cursor = cursor;
    this.#place();
    this.#say();
  }

  #place() {
    const { cell, columns, single } = this.#plan;
    this.#mark ??= Object.assign(document.createElement("span"), { className: "field-cursor" });
    const [x, y] = single ? [(this.#cursor % columns) * cell, Math.floor(this.#cursor / columns) * cell] : [0, this.#cursor * cell];
    const size = Math.max(cell, 6) + 4;
    Object.assign(this.#mark.style, {
      left: `${x - 2}px`, top: `${y - 2}px`, height: `${size}px`, width: single ? `${size}px` : `${columns * cell + 4}px`,
    });
    this.#box.append(this.#mark);
  }

  async #say() {
    const at = this.#cursor, asked = (this.#asked += 1);
    if (!this.#plan.single) {
      const [first, end] = this.#run(at), counts = this.#counts(at);
      const parts = ORDER.filter((state) => counts[state]).map((state) => `${said(counts[state])} ${WORDS[state]}`);
      this.#read.textContent = `Devices ${said(first + 1)} to ${said(end)}: ${parts.join(", ")}`;
      return;
    }
    const place = `Device ${said(at + 1)} of ${said(this.#states.length)}: ${WORDS[this.#states[at]]}`;
    this.#read.textContent = place;
    await new Promise((go) => setTimeout(go, 150));
    if (asked !== this.#asked) return;
    const answer = await fetch(`${this.#box.dataset.src}/${at}`).catch(() => null);
    if (asked !== this.#asked || !answer?.ok) return;
    const { device_id: name, note } = await answer.json();
    const link = Object.assign(document.createElement("a"), { href: `/console/devices/${encodeURIComponent(name)}`, textContent: name });
    this.#read.replaceChildren(`${place} · `, link, note ? ` · ${note}` : "");
  }
}

/** The pixels of a cell: `size` px wide with its gap, with the lines of its state from 8 px. */
function tile(name, state, size, gap, scale) {
  const word = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  const fill = rgb(name), letter = rgb(`${name}-letter`), inside = size - gap, lined = size >= 8 * scale;
  const line = word(fill.map((each, index) => Math.round(each * 0.5 + letter[index] * 0.5)));
  const plain = word(fill), outline = word(rgb("outline")), pixels = new Uint32Array(size * size);
  for (let y = 0; y < inside; y += 1) {
    for (let x = 0; x < inside; x += 1) {
      const [u, v] = [Math.floor(x / scale), Math.floor(y / scale)], edge = Math.floor((inside - 1) / scale);
      let colour = plain;
      if (state === 0) { if (gap && (u === 0 || v === 0 || u === edge || v === edge)) colour = outline; }
      else if (lined && state === 1 && u % 3 === 1) colour = line;
      else if (lined && state === FAILED && (u + v) % 4 === 3) colour = line;
      else if (lined && state === 5 && v % 3 === 1) colour = line;
      pixels[y * size + x] = colour;
    }
  }
  return pixels;
}
