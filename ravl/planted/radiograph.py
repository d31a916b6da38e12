"""A drawn frontal chest radiograph: a large heart, air beside a lung or neither, and things that doctors put there.

The picture is a sum of shadows with soft edges, written as functions of place, so that it is smooth at any size. The
frame has x to the right and y downwards, both -1..1, with the midline near 0; the patient's left is at the right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

from ravl.planted.drawing import Box, Canvas, CutOut, Painted, cloudy, laid_over, smooth_mask

CLASSES = ("cardiomegaly", "pneumothorax", "no finding")
SIDE = 112

LARGE_HEART, NORMAL_HEART = (0.51, 0.57), (0.43, 0.49)
"""Width of the heart over the inner width of the thorax; above one half is cardiomegaly."""

Field = NDArray[np.floating[Any]]
"""(SIDE, SIDE) float32, a quantity at each pixel."""


@dataclass(frozen=True)
class Anatomy:
    """One patient in one position. Lengths in units of half the picture's side.

    thorax: half the inner width. ratio: heart over thorax. apex, base: y of the lungs' upper end and of the diaphragm.
    air_side: -1 or 1, the side with a pneumothorax, 0 without. air: its width at the apex. turn: radians; shift: x, y.
    """

    thorax: float
    ratio: float
    apex: float
    base: float
    air_side: int
    air: float
    turn: float
    shift: tuple[float, float]


def anatomy_of(label: int, rng: np.random.Generator) -> Anatomy:
    """A patient of a class."""
    kind = CLASSES[label]
    return Anatomy(
        thorax=rng.uniform(0.64, 0.80),
        ratio=rng.uniform(*(LARGE_HEART if kind == "cardiomegaly" else NORMAL_HEART)),
        apex=rng.uniform(-0.80, -0.70),
        base=rng.uniform(0.38, 0.56),
        air_side=int(rng.choice((-1, 1))) if kind == "pneumothorax" else 0,
        air=rng.uniform(0.26, 0.42),
        turn=math.radians(rng.uniform(-3, 3)),
        shift=(rng.uniform(-0.08, 0.08), rng.uniform(-0.06, 0.06)),
    )


def paint(label: int, marks: Sequence[str], split: str, rng: np.random.Generator) -> Painted:
    """A radiograph with each mark at a plausible place. The splits differ by their seeds alone: patients never end."""
    body = anatomy_of(label, rng)
    grey = _exposed(_shadows(body, rng), rng)
    canvas: Canvas = np.repeat(grey[..., None], 3, 2)
    boxes: list[Box] = []
    for name in marks:
        opacity, x, y = _MARKS[name](body, rng)
        metal = np.clip(rng.uniform(225, 250) + rng.normal(0, 4, opacity.shape), 0, 255)
        canvas = laid_over(canvas, CutOut(np.repeat(metal[..., None], 3, 2), opacity), x, y)
        boxes.append((x, y, x + opacity.shape[1], y + opacity.shape[0]))
    return Painted(canvas, None, tuple(boxes))


# --- the patient -----------------------------------------------------------------------------------------------------


def _step(distance: Field, width: float) -> Field:
    """0 to 1 where `distance` passes 0, over about four times `width`."""
    return np.asarray(0.5 + 0.5 * np.tanh(distance / (2 * width)))


def _hill(distance: Field, width: float) -> Field:
    return np.asarray(np.exp(-((distance / width) ** 2)))


def _frame(body: Anatomy) -> tuple[Field, Field]:
    """x and y of every pixel in the patient's own frame."""
    line = ((np.arange(SIDE) + 0.5) / SIDE * 2 - 1).astype(np.float32)
    x, y = line[None, :] - body.shift[0], line[:, None] - body.shift[1]
    c, s = math.cos(body.turn), math.sin(body.turn)
    return c * x + s * y, c * y - s * x


def _lung_edge(body: Anatomy, y: Field) -> Field:
    """|x| of the lungs' outer edge: narrow at the apex, widest just above the diaphragm."""
    widest = body.base - 0.12
    up = np.clip((widest - y) / (widest - body.apex), 0, 1)
    down = np.clip(y - widest, 0, None)
    return np.asarray(body.thorax * (np.sqrt(1 - up**2.7) - 0.25 * down**2))


def _shadows(body: Anatomy, rng: np.random.Generator) -> Field:
    """How much the body holds back, 0 (air) to about 1."""
    x, y = _frame(body)
    aside, edge = np.abs(x), _lung_edge(body, y)
    # soft parts: neck and shoulders above, the flanks below
    wall = rng.uniform(0.13, 0.19)
    shoulders = 0.24 + 0.95 * _step(y + rng.uniform(0.80, 0.88), 0.045)
    flanks = body.thorax + wall + 0.35 * _step(-(y + 0.38), 0.06)
    trunk = _step(np.minimum(shoulders, flanks) - aside, 0.012)
    density = trunk * (0.50 + 0.06 * _step(aside - edge - 0.02, 0.03) + 0.03 * cloudy(SIDE, 7, rng))

    dome = body.base + (x > 0) * np.float32(0.05 * rng.uniform(0.3, 1.2))
    dome = dome + 0.42 * (aside - 0.34) ** 2 / body.thorax**2 + 0.35 * np.clip(aside - 0.52, 0, None) ** 2
    lungs = _step(edge - aside, 0.012) * _step(aside - 0.10 - 0.05 * _hill(y, 0.3), 0.018)
    lungs = lungs * _step(y - body.apex, 0.012) * _step(dome - y, 0.010)
    collapsed = _air(body, x, edge, y)
    density = density - lungs * (0.30 + 0.05 * _step(y + 0.1, 0.2)) * trunk
    density = density + lungs * (1 - collapsed) * _vessels(x, y, rng) - lungs * collapsed * 0.17
    if body.air_side:
        # the lung's own edge, a thin bright line between its air and the air that surrounds it
        density = density + 0.13 * lungs * _hill(collapsed - 0.5, 0.30) * (collapsed > 0.01)
    for side in (-1, 1):
        # breast or haze over a lung's base: it hides the heart's border in some
        blob = _hill(np.hypot(x - side * rng.uniform(0.30, 0.50), y - body.base + rng.uniform(0.10, 0.25)), 0.26)
        density = density + max(0.0, rng.uniform(-0.06, 0.16)) * blob * lungs
    density = density + _middle(body, x, y, lungs, rng)
    density = density + _bones(body, x, y, edge, trunk, rng)
    abdomen = _step(y - dome, 0.012) * _step(edge + 0.05 - aside, 0.03)
    density = density + abdomen * (0.20 - 0.10 * _step(y - body.base - 0.3, 0.08))
    bubble = _hill(np.hypot((x - 0.36) / 0.17, (y - body.base - 0.17) / 0.08), 1.0)
    return np.clip(density - rng.uniform(0, 0.25) * bubble * abdomen, 0, 0.92)


def _air(body: Anatomy, x: Field, edge: Field, y: Field) -> Field:
    """Where air surrounds the lung: a crescent along the outer edge, widest at the apex and gone before the base."""
    if not body.air_side:
        return np.zeros_like(x)
    end = body.base - 0.05
    width = body.air * np.clip((end - y) / (end - body.apex), 0, 1) ** 0.6
    # above its shrunken apex the lung is gone altogether
    pleura = np.minimum(edge - width, (y - body.apex - 0.55 * body.air) * 2.2 + 0.15)
    return _step(body.air_side * x - pleura, 0.008) * (body.air_side * x > 0) * _step(end - y, 0.02)


def _vessels(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Vessels that leave the hila and thin out, over fine mottling."""
    out = 0.02 * cloudy(SIDE, 28, rng)
    for side in (-1, 1):
        hx, hy = x - side * rng.uniform(0.17, 0.21), y + rng.uniform(0.0, 0.08)
        away, angle = np.hypot(hx, hy), np.arctan2(hy, hx)
        wave = np.sin(angle * int(rng.integers(9, 13)) + rng.uniform(0, 6.3) + 5 * cloudy(SIDE, 6, rng) * away)
        streak = np.clip(wave - 0.4, 0, None) * np.exp(-away / 0.33) * (1 - _hill(away, 0.1))
        out = out + (side * x > 0) * (0.22 * streak + 0.15 * _hill(away, 0.12) * (1 + 0.5 * cloudy(SIDE, 14, rng)))
    return np.asarray(out)


def _middle(body: Anatomy, x: Field, y: Field, lungs: Field, rng: np.random.Generator) -> Field:
    """Heart, great vessels, windpipe and spine."""
    width = 2 * body.thorax * body.ratio
    right = rng.uniform(0.30, 0.36)
    tilt = math.radians(rng.uniform(22, 36))
    long = width / 2 / math.sqrt(math.cos(tilt) ** 2 + 0.60 * math.sin(tilt) ** 2)
    hx, hy = x - width * (0.5 - right), y - (body.base + 0.04 - 0.72 * long)
    u, v = math.cos(tilt) * hx + math.sin(tilt) * hy, math.cos(tilt) * hy - math.sin(tilt) * hx
    heart = _step(1 - np.hypot(u / long, v / (0.775 * long)), 0.030)
    knob = _step(1 - np.hypot((x - 0.10) / 0.10, (y + rng.uniform(0.30, 0.38)) / 0.10), 0.10)
    vessels = _step(rng.uniform(0.10, 0.14) - np.abs(x - 0.01), 0.015) * _step(-y + 0.2, 0.1)
    middle = np.maximum(np.maximum(heart, knob * 0.8), vessels * 0.8 * _step(y + 0.85, 0.08))
    spine = _step(0.075 - np.abs(x), 0.012) * (0.8 + 0.2 * np.cos(y * rng.uniform(32, 38)))
    windpipe = _step(0.036 - np.abs(x + rng.uniform(-0.015, 0.015)), 0.010) * _step(-y - 0.28, 0.03)
    return np.asarray(0.30 * middle * (0.45 + 0.55 * lungs) + 0.12 * middle + 0.09 * spine - 0.14 * windpipe)


def _bones(body: Anatomy, x: Field, y: Field, edge: Field, trunk: Field, rng: np.random.Generator) -> Field:
    """Ribs behind and in front, and the collar bones."""
    aside = np.abs(x)
    t = aside / body.thorax
    cage = _step(edge + 0.035 - aside, 0.010) * _step(aside - 0.07, 0.02) * _step(y - body.apex + 0.04, 0.02)
    cage = cage * (1 - 0.75 * _step(y - body.base, 0.08))
    gap = rng.uniform(0.150, 0.170)
    offset = rng.uniform(0, 1)

    def ribs(curve: Field, half: float) -> Field:
        phase = (y - curve) / gap + offset
        distance = np.abs(phase - np.round(phase)) * gap
        return 0.6 * _step(half - distance, 0.008) + 0.4 * _hill(distance - half, 0.014)

    behind = ribs(0.34 * t**2.2 - 0.10 * np.sin(math.pi * np.clip(t, 0, 1)), 0.036)
    front = ribs(0.30 * (1 - t) - 0.12 * t, 0.040) * _step(t - 0.45, 0.06) * _step(y + 0.40, 0.06)
    bones = cage * (0.095 * behind + 0.05 * front)
    for side in (-1, 1):
        level = body.apex + rng.uniform(0.09, 0.15) - rng.uniform(0.10, 0.20) * (aside - 0.1)
        bow = level - 0.05 * np.sin(math.pi * np.clip((aside - 0.1) / 0.65, 0, 1))
        bone = _step(0.030 - np.abs(y - bow), 0.009) * _step(aside - 0.09, 0.01) * _step(0.78 - aside, 0.03)
        bones = bones + 0.14 * bone * (side * x > 0)
    return np.asarray(bones * trunk)


def _exposed(density: Field, rng: np.random.Generator) -> Field:
    """Grey levels: exposure, a slight fall towards one side, blur left to the shadows, and grain."""
    tilt, lean = rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05)
    line = np.linspace(-1, 1, SIDE, dtype=np.float32)
    film = density * (1 + lean * line[None, :] + tilt * line[:, None])
    film = np.clip(film, 0, None) ** rng.uniform(0.90, 1.20) * rng.uniform(0.86, 1.02)
    grain = rng.standard_normal((SIDE, SIDE), np.float32)
    grain = grain + (np.roll(grain, 1, 0) + np.roll(grain, 1, 1)) * 0.5
    return np.clip(12 + 232 * film + rng.uniform(2.0, 4.5) * grain, 0, 255)


# --- what doctors put there ------------------------------------------------------------------------------------------

Placed = tuple[NDArray[np.float64], int, int]
"""Opacity of a mark, and the pixel of its upper left corner."""


def _place(opacity: NDArray[np.float64], body: Anatomy, x: float, y: float) -> Placed:
    """A mark without its empty margins, centred at (x, y) of the patient's frame or as near as the picture allows."""
    rows, columns = np.flatnonzero(opacity.any(1)), np.flatnonzero(opacity.any(0))
    opacity = opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    c, s = math.cos(body.turn), math.sin(body.turn)
    fx, fy = c * x - s * y + body.shift[0], s * x + c * y + body.shift[1]
    h, w = opacity.shape
    left, top = round((fx + 1) / 2 * SIDE - w / 2), round((fy + 1) / 2 * SIDE - h / 2)
    return opacity, min(max(left, 1), SIDE - w - 1), min(max(top, 1), SIDE - h - 1)


def _line(d: ImageDraw.ImageDraw, k: int, points: NDArray[np.float64], width: float, fill: int = 255) -> None:
    d.line([tuple(p) for p in points * k], fill, max(1, round(width * k)), joint="curve")


def _clips(body: Anatomy, rng: np.random.Generator) -> Placed:
    """Six to eight short bars in a loose group, anywhere over the thorax."""
    side, count = int(rng.integers(22, 29)), int(rng.integers(6, 9))
    line = np.linspace(4, side - 4, count)
    spread = np.stack([rng.permutation(line), line], 1)
    main = rng.uniform(0, math.pi)

    def draw(d: ImageDraw.ImageDraw, k: int) -> None:
        for centre in spread:
            angle, reach = main + rng.normal(0, 0.5), rng.uniform(2.8, 3.8)
            step = reach * np.array([math.cos(angle), math.sin(angle)])
            _line(d, k, np.stack([centre - step, centre + step]), 3.2)

    opacity = smooth_mask(side, side, draw)
    return _place(opacity, body, rng.uniform(-0.8, 0.8) * body.thorax, rng.uniform(-0.5, 0.35))


def _pacemaker(body: Anatomy, rng: np.random.Generator) -> Placed:
    """A rounded can with its head and the beginning of two leads, below a collar bone and mostly the left one."""
    w, h = int(rng.integers(23, 28)), int(rng.integers(17, 21))
    flip = rng.random() < 0.5
    can = w - 7
    t = np.linspace(0, 1, 20)
    # the leads leave the head towards the heart and sink out of sight
    lead = np.stack([can - 5 + 11 * np.sin(2.2 * t), 2 + (h - 4) * t**1.6], 1)

    def draw(d: ImageDraw.ImageDraw, k: int) -> None:
        for shift in (0.0, 2.4):
            _line(d, k, lead - [shift, -0.6 * shift], 1.3, 210)
        d.rounded_rectangle((0, 5 * k, can * k, h * k - 1), 6 * k, 225)
        d.rounded_rectangle((3 * k, round(8.5 * k), (can - 3) * k, round(h - 3.5) * k), 3 * k, 200)
        d.rectangle((round(can * 0.5) * k, 10 * k, (can - 4) * k, (h - 5) * k), 255)
        d.rounded_rectangle((round(can * 0.4) * k, 1 * k, (can - 1) * k, 7 * k), 2 * k, 185)

    opacity = smooth_mask(w, h, draw)
    side = 1 if rng.random() < 0.75 else -1
    return _place(
        opacity[:, ::-1] if flip else opacity, body, side * rng.uniform(0.40, 0.62), rng.uniform(-0.50, -0.28)
    )


def _drain(body: Anatomy, rng: np.random.Generator) -> Placed:
    """A tube that enters through the side and bends upwards; its walls are dense, its middle is not."""
    w, h = int(rng.integers(22, 28)), int(rng.integers(20, 27))
    t = np.linspace(0, 1, 16)[:, None]
    # a quadratic curve from the skin (lower outer corner) to the tip (upper inner corner)
    first, bend, last = np.array([w - 3.0, h - 4.0]), np.array([rng.uniform(3, 8), h - 4.0]), np.array([4.0, 3.0])
    curve = (1 - t) ** 2 * first + 2 * t * (1 - t) * bend + t**2 * last

    def draw(d: ImageDraw.ImageDraw, k: int) -> None:
        _line(d, k, curve, 4.6)
        _line(d, k, curve, 1.8, 90)

    opacity = smooth_mask(w, h, draw)
    side = int(rng.choice((-1, 1)))
    x = side * (body.thorax - rng.uniform(0.0, 0.14))
    return _place(opacity if side > 0 else opacity[:, ::-1], body, x, rng.uniform(-0.30, 0.28))


def _letter(body: Anatomy, rng: np.random.Generator) -> Placed:
    """L at the patient's left, R at the right, in an upper corner."""
    h = int(rng.integers(15, 20))
    w = round(h * 0.72)
    left = rng.random() < 0.5
    stroke = h * 0.17
    low, high, near, far = stroke / 2, h - stroke / 2, stroke / 2, w - stroke / 2

    def draw(d: ImageDraw.ImageDraw, k: int) -> None:
        _line(d, k, np.array([[near, 0.0], [near, h]]), stroke)
        if left:
            _line(d, k, np.array([[0.0, high], [w, high]]), stroke)
            return
        t = np.linspace(-math.pi / 2, math.pi / 2, 12)
        bow = np.stack([w * 0.45 + (far - w * 0.45) * np.cos(t), h * 0.29 + (h * 0.29 - low) * np.sin(t)], 1)
        _line(d, k, np.concatenate([[[near, low]], bow, [[near, h * 0.58 - low]]]), stroke)
        _line(d, k, np.array([[w * 0.45, h * 0.55], [far, h]]), stroke)

    opacity = smooth_mask(w, h, draw)
    return _place(opacity, body, (1 if left else -1) * rng.uniform(0.70, 0.86), rng.uniform(-0.84, -0.62))


_MARKS: dict[str, Callable[[Anatomy, np.random.Generator], Placed]] = {
    "metal clips": _clips,
    "pacemaker": _pacemaker,
    "chest drain": _drain,
    "laterality marker": _letter,
}
