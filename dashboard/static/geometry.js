// Pure geometry of the map. Points have unit coordinates: 0 .. 1 over the frame, y upwards. Shapes live on a grid of
// 65 536 cells over -1 .. 2, the same that the server counts with.

const LEVELS = 65535;
const MAX_CORNERS = 160;
const MAX_ZOOM = 32;
const MIN_ZOOM = 0.8;

const toCell = (unit) => Math.round(Math.min(1, Math.max(0, (unit + 1) / 3)) * LEVELS);
const fromCell = (cell) => (3 * cell) / LEVELS - 1;

// The part of the plane on the screen. centre: unit coordinates; zoom 1 shows the whole frame within a margin.
class View {
  constructor() {
    this.reset();
    this.width = this.height = 1;
    this.margin = 18;
  }
  reset() {
    this.x = this.y = 0.5;
    this.zoom = 1;
  }
  get spanX() {
    return Math.max(1, this.width - 2 * this.margin) * this.zoom; // pixels of one unit
  }
  get spanY() {
    return Math.max(1, this.height - 2 * this.margin) * this.zoom;
  }
  toScreen(x, y) {
    return [this.width / 2 + (x - this.x) * this.spanX, this.height / 2 - (y - this.y) * this.spanY];
  }
  toUnit(sx, sy) {
    return [this.x + (sx - this.width / 2) / this.spanX, this.y - (sy - this.height / 2) / this.spanY];
  }
  pan(dx, dy) {
    this.x -= dx / this.spanX;
    this.y += dy / this.spanY;
    this.clamp();
  }
  zoomAt(factor, sx, sy) {
    const [x, y] = this.toUnit(sx, sy);
    this.zoom = Math.min(MAX_ZOOM, Math.max(MIN_ZOOM, this.zoom * factor));
    this.x = x - (sx - this.width / 2) / this.spanX;
    this.y = y + (sy - this.height / 2) / this.spanY;
    this.clamp();
  }
  clamp() {
    this.x = Math.min(1, Math.max(0, this.x));
    this.y = Math.min(1, Math.max(0, this.y));
  }
}

// The corners of a drawn line that matter: Douglas and Peucker with a tolerance in pixels, raised until few are left.
function simplified(path) {
  let corners = path;
  for (let tolerance = 0.7; ; tolerance *= 1.5) {
    corners = peucker(path, tolerance);
    if (corners.length <= MAX_CORNERS) return corners;
  }
}

function peucker(path, tolerance) {
  if (path.length < 3) return path;
  const keep = new Uint8Array(path.length);
  keep[0] = keep[path.length - 1] = 1;
  const waiting = [[0, path.length - 1]];
  while (waiting.length) {
    const [first, last] = waiting.pop();
    let far = tolerance;
    let at = -1;
    for (let i = first + 1; i < last; i++) {
      const distance = toSegment(path[i], path[first], path[last]);
      if (distance > far) [far, at] = [distance, i];
    }
    if (at > 0) {
      keep[at] = 1;
      waiting.push([first, at], [at, last]);
    }
  }
  return path.filter((_, i) => keep[i]);
}

function toSegment([x, y], [x0, y0], [x1, y1]) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const square = dx * dx + dy * dy;
  const t = square ? Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / square)) : 0;
  return Math.hypot(x - x0 - t * dx, y - y0 - t * dy);
}

// Points by the cell they lie in, to find the one under the pointer without looking at all of them.
class Cells {
  constructor(x, y) {
    this.x = x;
    this.y = y;
    this.side = Math.max(8, Math.min(256, Math.ceil(Math.sqrt(x.length / 4))));
    const start = (this.start = new Uint32Array(this.side * this.side + 1));
    for (let i = 0; i < x.length; i++) start[this.cell(i) + 1]++;
    for (let c = 1; c < start.length; c++) start[c] += start[c - 1];
    this.member = new Uint32Array(x.length);
    const next = start.slice();
    for (let i = 0; i < x.length; i++) this.member[next[this.cell(i)]++] = i;
  }
  place(value) {
    return Math.min(this.side - 1, Math.max(0, Math.floor(value * this.side)));
  }
  cell(i) {
    return this.place(this.y[i] / LEVELS) * this.side + this.place(this.x[i] / LEVELS);
  }
  // The shown point nearest to a place on the screen, at most `reach` pixels away; -1 for none.
  nearest(view, sx, sy, reach, shown) {
    const [x, y] = view.toUnit(sx, sy);
    const [rx, ry] = [reach / view.spanX, reach / view.spanY];
    let best = reach * reach;
    let found = -1;
    for (let row = this.place(y - ry); row <= this.place(y + ry); row++) {
      for (let column = this.place(x - rx); column <= this.place(x + rx); column++) {
        const cell = row * this.side + column;
        for (let k = this.start[cell]; k < this.start[cell + 1]; k++) {
          const i = this.member[k];
          const dx = (this.x[i] / LEVELS - x) * view.spanX;
          const dy = (this.y[i] / LEVELS - y) * view.spanY;
          const square = dx * dx + dy * dy;
          if (square <= best && shown(i)) [best, found] = [square, i];
        }
      }
    }
    return found;
  }
}
