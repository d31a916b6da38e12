// Runs after geometry.js and painting.js, in one function: compares them with slower ways of saying the same.

const found = { far: [], cells: [], wrong: [], order: [], ground: false, painted: false };
let seed = 1;
const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
for (const n of [3, 50, 3000]) {  // a rough line: what is kept lies on it, what is dropped lies near
  const path = Array.from({ length: n }, (_, k) => [400 + 300 * Math.cos(k / n * 6) + random() * 20, 300 + 200 * Math.sin(k / n * 9)]);
  const kept = simplified(path);
  if (kept.length > MAX_CORNERS || kept[0] !== path[0] || kept.at(-1) !== path.at(-1)) found.far.push(n);
  if (kept.some(point => !path.includes(point))) found.far.push(n);
  const smooth = Array.from({ length: n }, (_, k) => [400 + 300 * Math.cos(k / n * 6.28), 300 + 200 * Math.sin(k / n * 6.28)]);
  const few = simplified(smooth);
  for (const point of smooth) {
    const near = Math.min(...few.slice(1).map((end, k) => toSegment(point, few[k], end)));
    if (near > 1.5) found.far.push([n, near]);
  }
}
for (const cell of [0, 1, 21845, 30000, 65535]) if (toCell(fromCell(cell)) !== cell) found.cells.push(cell);
const n = 5000;
const [x, y] = [0, 1].map(() => Uint16Array.from({ length: n }, () => Math.floor(random() * 65536)));
const view = Object.assign(new View(), { width: 700, height: 400 });
view.zoomAt(3, 200, 100);
const cells = new Cells(x, y);
for (let k = 0; k < 200; k++) {
  const [sx, sy] = [random() * 700, random() * 400];
  const shown = (i) => i % 3 > 0;
  let [best, nearest] = [64, -1];
  for (let i = 0; i < n; i++) {
    const [px, py] = view.toScreen(x[i] / LEVELS, y[i] / LEVELS);
    const square = (px - sx) ** 2 + (py - sy) ** 2;
    if (shown(i) && square < best) [best, nearest] = [square, i];
  }
  if (cells.nearest(view, sx, sy, 8, shown) !== nearest) found.wrong.push(k);
}
const codes = Uint8Array.from({ length: n }, (_, i) => (i % 7 ? i % 3 : HIDDEN));
const quiet = [false, false, true];
const bits = Uint8Array.from({ length: Math.ceil(n / 8) }, () => Math.floor(random() * 256));
const { order, lifted } = paintOrder(codes, quiet, bits);
const chosen = (i) => (bits[i >> 3] >> (i & 7)) & 1;
const level = (i) => 2 * chosen(i) + (quiet[codes[i]] ? 0 : 1);
if (order.length !== codes.filter(code => code !== HIDDEN).length || new Set(order).size !== order.length) found.order.push("set");
order.forEach((i, k) => { if (codes[i] === HIDDEN || (k && level(order[k - 1]) > level(i)) || chosen(i) !== Number(k >= lifted)) found.order.push(k); });
const canvas = Object.assign(document.createElement("canvas"), { width: 700, height: 400 });
const context = canvas.getContext("2d");
const one = { x: Uint16Array.of(32768), y: Uint16Array.of(32768), codes: Uint8Array.of(0), order: Uint32Array.of(0), lifted: 0 };
view.reset();
paint(context, view, 1, one, 3, [10, 20, 30], [[200, 100, 50]], [[0, 0, 0]]);
const at = (px, py) => [...context.getImageData(px, py, 1, 1).data].join();
found.ground = at(0, 0) === "10,20,30,255" && at(699, 399) === "10,20,30,255";
found.painted = at(350, 200) === "200,100,50,255" && at(360, 200) === "10,20,30,255";
return found;
