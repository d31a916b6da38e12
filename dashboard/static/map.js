// The map of regions: points on a canvas, with lasso, box, move, zoom, hover, legend and keyboard.
//
// What is selected, hidden and counted is decided by the server and shown here; zoom and tool are the reader's own and
// live here, by run, over redraws, page changes and reloads. `component.data`: run, points and codes (versions of the
// arrays in the store), entries of the legend, shapes and selected (a bit per point) or null, dark, texts, ack (the last
// event that was heard, by kind).

const shared = (globalThis[Symbol.for("ravl.map")] ??= { arrays: new Map(), listeners: new Set(), asked: null });
const maps = (shared.maps ??= new WeakMap());
const STEP = 0.12; // of the width: what an arrow key moves
const STILL = 90; // ms without a move before the region under the pointer is asked for
const KNOWN = 400; // answers that are kept

class RegionMap {
  constructor(root) {
    this.root = root;
    const one = (selector) => root.querySelector(selector);
    this.field = one(".field");
    this.points = one(".points").getContext("2d", { alpha: false });
    this.over = one(".over").getContext("2d");
    [this.note, this.card, this.legend, this.said] = [".note", ".card", ".legend", ".said"].map(one);
    this.view = new View();
    this.mode = "lasso";
    this.pointers = new Map();
    this.answers = new Map();
    this.drawn = null; // the path that is being drawn, in pixels
    this.waiting = { drawn: [], legend: [] }; // events that the server has not heard yet
    this.hovered = -1;
    this.seq = 0;
    this.frame = 0;
    this.listen = (name) => (name === "answer" ? this.answered() : this.refresh());
    shared.listeners.add(this.listen);
    new ResizeObserver(() => this.resize()).observe(this.field);
    this.wire();
  }

  // --- what the server says ---------------------------------------------------------------------------------------

  update(component) {
    const before = this.data;
    this.data = component.data;
    this.send = component.setStateValue;
    if (before?.run !== this.data.run) this.recall();
    for (const kind of ["drawn", "legend"]) this.forget(kind);
    this.seq = Math.max(this.seq, this.data.ack.drawn, this.data.ack.legend);
    this.said.textContent = this.data.said;
    this.writeLegend();
    this.refresh();
  }

  refresh() {
    const [points, codes] = ["points", "codes"].map((name) => shared.arrays.get(name));
    const ready = points?.version === this.data?.points && codes?.version === this.data?.codes;
    if (!ready) return; // the arrays and the rest come in messages of their own; the last one shows all
    if (this.geometry !== points.version) {
      const flat = new Uint16Array(points.bytes.buffer);
      const n = flat.length / 2;
      [this.x, this.y] = [flat.subarray(0, n), flat.subarray(n)];
      this.cells = new Cells(this.x, this.y);
      this.geometry = points.version;
      this.answers.clear();
      this.hover(-1);
    }
    this.codes = codes.bytes;
    this.selected = this.data.selected && Uint8Array.from(atob(this.data.selected), (c) => c.charCodeAt(0));
    const quiet = this.data.entries.map((entry) => entry.quiet);
    Object.assign(this, paintOrder(this.codes, quiet, this.selected));
    this.note.textContent = this.order.length ? "" : this.data.texts.nothing;
    this.root.dataset.shown = this.order.length;
    this.root.dataset.lifted = this.selected ? this.order.length - this.lifted : 0;
    this.redraw();
  }

  writeLegend() {
    const kept = this.legend.querySelector(":focus")?.dataset.code ?? this.root.getRootNode().activeElement?.dataset?.code;
    this.legend.replaceChildren(
      ...this.data.entries.map((entry, code) => {
        const button = document.createElement("button");
        const [dot, name, count] = ["i", "b", "small"].map((tag) => document.createElement(tag));
        button.type = "button";
        button.dataset.code = code;
        button.setAttribute("aria-pressed", String(!entry.hidden));
        dot.style.cssText = `background:${entry.colour};border:2px solid ${entry.colour}`;
        name.textContent = entry.name; // of users: never as HTML
        count.textContent = entry.count.toLocaleString("en");
        button.append(dot, name, count);
        button.onclick = () => this.tell("legend", { code, colouring: this.data.by });
        return button;
      }),
    );
    if (kept !== undefined) this.legend.querySelector(`[data-code="${kept}"]`)?.focus();
  }

  // Events are sent together with those before that may not have been heard: a state that is set twice in a hurry
  // arrives once.
  tell(kind, event) {
    this.seq += 1;
    this.forget(kind);
    this.waiting[kind].push({ ...event, seq: this.seq });
    this.send(kind, [...this.waiting[kind]]);
  }

  forget(kind) {
    this.waiting[kind] = this.waiting[kind].filter((event) => event.seq > this.data.ack[kind]);
  }

  // --- what the reader keeps --------------------------------------------------------------------------------------

  recall() {
    const text = sessionStorage.getItem(`ravl-map:${this.data.run}`);
    const kept = text ? JSON.parse(text) : {};
    this.view.reset();
    if ([kept.x, kept.y, kept.zoom].every(Number.isFinite)) Object.assign(this.view, { x: kept.x, y: kept.y, zoom: kept.zoom });
    this.choose(["lasso", "box", "pan"].includes(kept.mode) ? kept.mode : "lasso");
  }

  keep() {
    const { x, y, zoom } = this.view;
    sessionStorage.setItem(`ravl-map:${this.data.run}`, JSON.stringify({ x, y, zoom, mode: this.mode }));
    this.root.dataset.view = [x, y, zoom].map((v) => v.toFixed(4)).join(" ");
  }

  choose(mode) {
    this.mode = this.field.dataset.mode = mode;
    for (const button of this.root.querySelectorAll("[data-mode]")) {
      if (button.tagName === "BUTTON") button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    }
    this.keep();
  }

  // --- painting ---------------------------------------------------------------------------------------------------

  resize() {
    if (!this.field.isConnected) return void shared.listeners.delete(this.listen);
    const { clientWidth: width, clientHeight: height } = this.field;
    const ratio = (this.ratio = Math.min(2, devicePixelRatio || 1));
    for (const { canvas } of [this.points, this.over]) {
      [canvas.width, canvas.height] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
    }
    Object.assign(this.view, { width: Math.max(1, width), height: Math.max(1, height) });
    this.paintAll();
  }

  redraw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.paintAll();
    });
  }

  paintAll() {
    if (!this.codes || !this.ratio) return;
    const style = getComputedStyle(this.field);
    const ground = colourOf(style.backgroundColor);
    const colours = this.data.entries.map((entry) => colourOf(entry.colour));
    const dim = this.selected && colours.map((colour) => mixed(ground, colour, 0.2));
    const points = { x: this.x, y: this.y, codes: this.codes, order: this.order, lifted: this.lifted };
    const start = performance.now();
    paint(this.points, this.view, this.ratio, points, this.radius() * this.ratio, ground, colours, dim);
    this.root.dataset.paint = (performance.now() - start).toFixed(1);
    this.root.dataset.drawn = `${this.data.points} ${this.data.codes}`;
    this.paintOver(style.color);
  }

  radius() {
    const n = this.order.length;
    const base = n > 50000 ? 1.2 : n > 20000 ? 1.5 : n > 5000 ? 1.9 : 2.8;
    return Math.min(6, base * Math.max(1, this.view.zoom) ** 0.35);
  }

  paintOver(colour = getComputedStyle(this.field).color) {
    const pen = this.over;
    pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    pen.clearRect(0, 0, this.view.width, this.view.height);
    pen.strokeStyle = colour;
    pen.lineWidth = 1.5;
    pen.setLineDash([5, 4]);
    for (const cells of this.shapes()) {
      const path = [];
      for (let k = 0; k < cells.length; k += 2) path.push(this.view.toScreen(fromCell(cells[k]), fromCell(cells[k + 1])));
      this.trace(pen, path, true);
    }
    pen.setLineDash([]);
    if (this.drawn) this.trace(pen, this.drawn, this.mode === "box");
    if (this.hovered >= 0) {
      const [sx, sy] = this.view.toScreen(this.x[this.hovered] / LEVELS, this.y[this.hovered] / LEVELS);
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(sx, sy, this.radius() + 4, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  // What is selected, and what was drawn since.
  shapes() {
    let shapes = [...this.data.shapes];
    for (const { cells, add } of this.waiting.drawn) {
      if (!add) shapes = [];
      if (cells) shapes.push(cells);
    }
    return shapes;
  }

  trace(pen, path, closed) {
    if (path.length < 2) return;
    pen.beginPath();
    path.forEach(([x, y], k) => (k ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    if (closed) pen.closePath();
    pen.stroke();
  }

  // --- drawing and moving -----------------------------------------------------------------------------------------

  wire() {
    const field = this.field;
    field.addEventListener("pointerdown", (event) => this.down(event));
    field.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) field.addEventListener(end, (event) => this.up(event));
    field.addEventListener("pointerleave", () => this.pointers.size || this.hover(-1));
    field.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    field.addEventListener("keydown", (event) => this.key(event));
    this.root.querySelector(".bar").onclick = (event) => {
      const { mode, do: action } = event.target.closest("button")?.dataset ?? {};
      if (mode) this.choose(mode);
      if (action) this.act(action);
    };
  }

  place(event) {
    const box = this.field.getBoundingClientRect();
    return [event.clientX - box.left - this.field.clientLeft, event.clientY - box.top - this.field.clientTop];
  }

  down(event) {
    if (event.button > 0) return;
    this.field.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.place(event));
    this.hover(-1);
    // a second finger turns any drawing into moving and zooming
    this.drawn = this.pointers.size === 1 && this.mode !== "pan" ? [this.place(event)] : null;
    this.field.classList.toggle("moving", !this.drawn);
    this.paintOver();
  }

  move(event) {
    const at = this.place(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) return this.point(at);
    if (this.drawn) {
      const path = (event.getCoalescedEvents?.() ?? []).map((part) => this.place(part));
      if (this.mode === "box") this.drawn = boxOf(this.drawn[0], at);
      else this.drawn.push(...(path.length ? path : [at]));
      return this.paintOver();
    }
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    if (!others.length) this.view.pan(at[0] - before[0], at[1] - before[1]);
    else this.pinch(before, at, others[0]);
    this.pointers.set(event.pointerId, at);
    this.redraw();
  }

  pinch(before, at, other) {
    const apart = ([x, y]) => Math.max(10, Math.hypot(x - other[0], y - other[1]));
    this.view.pan((at[0] - before[0]) / 2, (at[1] - before[1]) / 2);
    this.view.zoomAt(apart(at) / apart(before), (at[0] + other[0]) / 2, (at[1] + other[1]) / 2);
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    const path = this.drawn;
    this.drawn = null;
    this.field.classList.remove("moving");
    if (path && event.type === "pointerup") this.finish(path, event);
    else this.keep();
    this.paintOver();
  }

  finish(path, event) {
    const xs = path.map(([x]) => x);
    const ys = path.map(([, y]) => y);
    const size = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys));
    if (size < 5) return this.point(this.place(event), true); // a click, or a tap: show the region there
    this.select(simplified(path), event.shiftKey);
  }

  select(path, add) {
    const cells = path.flatMap(([sx, sy]) => this.view.toUnit(sx, sy).map(toCell));
    if (cells.length < 6) return;
    this.tell("drawn", { cells, add });
    this.paintOver();
  }

  wheel(event) {
    if (!event.ctrlKey && !event.metaKey && this.mode !== "pan") return; // the page scrolls
    event.preventDefault();
    this.view.zoomAt(2 ** (-event.deltaY / 240), ...this.place(event));
    this.hover(-1);
    this.keep();
    this.redraw();
  }

  act(action) {
    const { width, height } = this.view;
    if (action === "fit") this.view.reset();
    else this.view.zoomAt(action === "in" ? 1.5 : 1 / 1.5, width / 2, height / 2);
    this.hover(-1);
    this.keep();
    this.redraw();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { width, height } = this.view;
    const step = STEP * width;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    const acts = { "+": "in", "=": "in", "-": "out", "−": "out", 0: "fit" };
    const modes = { l: "lasso", b: "box", p: "pan" };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (moves[key]) {
      this.view.pan(...moves[key]);
      this.keep();
      this.redraw();
    } else if (acts[key]) this.act(acts[key]);
    else if (modes[key]) this.choose(modes[key]);
    else if (key === "Enter") this.select(boxOf([0, 0], [width, height]), event.shiftKey);
    else if (key === "Escape") this.escape();
    else return;
    event.preventDefault();
    event.stopPropagation(); // the page has shortcuts of its own
  }

  escape() {
    if (this.drawn) {
      this.drawn = null;
      this.paintOver();
    } else if (this.data.selected || this.waiting.drawn.length) {
      this.tell("drawn", { clear: true });
      this.paintOver();
    }
  }

  // --- the region under the pointer -------------------------------------------------------------------------------

  point(at, now = false) {
    if (!this.cells) return;
    const found = this.cells.nearest(this.view, ...at, 8, (i) => this.codes[i] !== HIDDEN);
    if (found === this.hovered) return;
    this.hover(found);
    if (found >= 0) this.timer = setTimeout(() => this.ask(found), now ? 0 : STILL);
  }

  hover(point) {
    clearTimeout(this.timer);
    this.card.hidden = true;
    if (this.hovered === point) return;
    this.hovered = point;
    if (this.codes && this.ratio) this.paintOver();
  }

  ask(point) {
    const known = this.answers.get(point);
    if (known) return this.show(point, known);
    if (!shared.ask || (shared.asked && performance.now() - shared.asked.at < 2000)) return; // one at a time
    shared.asked = { point, at: performance.now() };
    shared.ask(point, Date.now());
  }

  answered() {
    const answer = shared.answer;
    if (!answer || answer.points !== this.geometry) return;
    shared.asked = null;
    if (this.answers.size >= KNOWN) this.answers.delete(this.answers.keys().next().value);
    this.answers.set(answer.point, answer);
    if (this.hovered === answer.point) this.show(answer.point, answer);
    else if (this.hovered >= 0) this.ask(this.hovered); // the pointer went on in between
  }

  show(point, answer) {
    const [image, text] = [this.card.querySelector("img"), this.card.querySelector("p")];
    if (answer.picture) image.src = answer.picture;
    else image.removeAttribute("src");
    image.alt = answer.alt;
    text.textContent = answer.text;
    const [sx, sy] = this.view.toScreen(this.x[point] / LEVELS, this.y[point] / LEVELS);
    const { width, height } = this.view;
    this.card.hidden = false;
    const [wide, high] = [this.card.offsetWidth, this.card.offsetHeight];
    this.card.style.left = `${Math.max(4, sx + 14 + wide < width ? sx + 14 : sx - 14 - wide)}px`;
    this.card.style.top = `${Math.min(Math.max(4, sy - high / 2), Math.max(4, height - high - 4))}px`;
  }
}

const boxOf = ([x0, y0], [x1, y1]) => [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];

export default function (component) {
  const root = component.parentElement.querySelector(".map");
  if (!maps.has(root)) maps.set(root, new RegionMap(root));
  maps.get(root).update(component);
}
