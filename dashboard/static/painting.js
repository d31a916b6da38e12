// Painting of points into pixels, without a graphics card: one small stamp per point, mixed in whole numbers.

const HIDDEN = 255;

// "#RRGGBB" or "rgb(r, g, b)" as [r, g, b].
function colourOf(text) {
  if (text.startsWith("#")) return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
  return (text.match(/[\d.]+/g) ?? [0, 0, 0]).slice(0, 3).map(Number);
}

const mixed = (one, other, share) => one.map((v, k) => Math.round(v + (other[k] - v) * share));

// A round stamp: offsets of its pixels and how much of each it covers, 0 .. 256.
function stampOf(radius, stride) {
  const reach = Math.ceil(radius + 0.5);
  const offset = [];
  const cover = [];
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      const share = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(dx, dy)));
      if (share > 0.05) {
        offset.push(dy * stride + dx);
        cover.push(Math.round(share * 256));
      }
    }
  }
  return { reach, offset: Int32Array.from(offset), cover: Uint16Array.from(cover) };
}

// Points in the order in which they are painted: what is left over, then groups; above both, what is selected.
function paintOrder(codes, quiet, selected) {
  const layer = new Uint8Array(codes.length);
  const size = new Uint32Array(5);
  for (let i = 0; i < codes.length; i++) {
    const chosen = selected && (selected[i >> 3] >> (i & 7)) & 1;
    layer[i] = codes[i] === HIDDEN ? 4 : (chosen ? 2 : 0) + (quiet[codes[i]] ? 0 : 1);
    size[layer[i]]++;
  }
  const next = [0, size[0], size[0] + size[1], size[0] + size[1] + size[2]];
  const lifted = next[2];
  const order = new Uint32Array(codes.length - size[4]);
  for (let i = 0; i < codes.length; i++) if (layer[i] < 4) order[next[layer[i]]++] = i;
  return { order, lifted };
}

// Paint all points onto a ground. colours: [r, g, b] per code. dim: those below `lifted` are nearly the ground's colour.
// A selected point has a rim, as the eye finds it by more than its colour.
function paint(context, view, ratio, points, radius, ground, colours, dim) {
  const { x, y, codes, order, lifted } = points;
  const [width, height] = [context.canvas.width, context.canvas.height];
  const reach = Math.ceil(radius + 1.5) + 1;
  const stride = width + 2 * reach; // a rim around the picture, so that no stamp has to be cut
  const image = new ImageData(stride, height + 2 * reach);
  const pixels = new Uint32Array(image.data.buffer);
  pixels.fill((0xff000000 | (ground[2] << 16) | (ground[1] << 8) | ground[0]) >>> 0);
  const stamp = stampOf(radius, stride);
  const [scaleX, scaleY] = [(view.spanX * ratio) / LEVELS, (view.spanY * ratio) / LEVELS];
  const left = width / 2 - view.x * view.spanX * ratio;
  const top = height / 2 + view.y * view.spanY * ratio;
  const strength = dim ? 256 : 224;
  for (let k = 0; k < order.length; k++) {
    const i = order[k];
    const px = Math.round(left + x[i] * scaleX);
    const py = Math.round(top - y[i] * scaleY);
    if (px < 0 || py < 0 || px >= width || py >= height) continue;
    const faint = dim && k < lifted;
    const colour = faint ? dim[codes[i]] : colours[codes[i]];
    stampOn(pixels, (py + reach) * stride + px + reach, stamp, colour, faint ? 200 : strength);
  }
  context.putImageData(image, -reach, -reach);
}

function stampOn(pixels, at, stamp, [red, green, blue], strength) {
  const { offset, cover } = stamp;
  for (let j = 0; j < offset.length; j++) {
    const share = (cover[j] * strength) >> 8;
    const old = pixels[at + offset[j]];
    const r = old & 255;
    const g = (old >> 8) & 255;
    const b = (old >> 16) & 255;
    pixels[at + offset[j]] =
      (0xff000000 |
        ((b + (((blue - b) * share) >> 8)) << 16) |
        ((g + (((green - g) * share) >> 8)) << 8) |
        (r + (((red - r) * share) >> 8))) >>>
      0;
  }
}
