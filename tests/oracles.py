"""The formulas of the discovery stages a second time: slower, plainer, with loops, written from the definitions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.tables import NOISE, Clustering, Regions, ZeroShot


def cosine(a: Any, b: Any) -> float:
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    length = math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(y) ** 2 for y in b))
    return dot / length if length else 0.0


def probabilities(vector: Any, text: Any, tau: float) -> list[float]:
    """softmax_y(cos(v, text_y) / tau)."""
    logits = [cosine(vector, t) / tau for t in text]
    power = [math.exp(v - max(logits)) for v in logits]
    return [p / sum(power) for p in power]


def first_best(values: list[float]) -> int:
    """Index of the largest value, the first of equals."""
    return max(range(len(values)), key=lambda j: (values[j], -j))


def best_region(regions: Regions, zero_shot: ZeroShot, image: int) -> int:
    ids = [r for r in range(len(regions)) if regions.image[r] == image]
    if not ids:
        return -1
    predicted = first_best([float(p) for p in zero_shot.image[image]])
    return ids[first_best([float(zero_shot.region[r, predicted]) for r in ids])]


@dataclass
class Score:
    """One feature's scores; NaN where undefined."""

    class_gap: list[float]
    gap: float
    influence: float
    two_sided: bool
    pull_class: int
    n_regions: int
    n_images: int
    n_errors: int
    n_decided: int
    counts: list[tuple[int, int, int, int]]
    """Per class: n_in, right_in, n_out, right_out."""

    def passes(self, min_influence: float, two_sided: bool) -> bool:
        return self.influence >= min_influence and (self.two_sided or not two_sided)


def score(regions: Regions, zero_shot: ZeroShot, label_of_region: NDArray[Any], feature: int) -> Score:
    """gap_y = w_y (acc_in_y - acc_out_y), w_y = 2 min(n_in, n_out) / (n_in + n_out); influence = max over gap_y < 0."""
    n_classes = zero_shot.image.shape[1]
    own = [[r for r in range(len(regions)) if regions.image[r] == i] for i in range(regions.n_images)]
    predicted = [first_best([float(p) for p in row]) for row in zero_shot.image]
    shows = [any(label_of_region[r] == feature for r in ids) for ids in own]
    class_gap, counts, shares = [], [], []
    decided: list[int] = []
    for y in range(n_classes):
        inside = [i for i in range(regions.n_images) if zero_shot.label[i] == y and shows[i]]
        outside = [i for i in range(regions.n_images) if zero_shot.label[i] == y and not shows[i]]
        right_in = sum(predicted[i] == y for i in inside)
        right_out = sum(predicted[i] == y for i in outside)
        counts.append((len(inside), right_in, len(outside), right_out))
        if inside and outside:
            weight = 2 * min(len(inside), len(outside)) / (len(inside) + len(outside))
            class_gap.append(weight * (right_in / len(inside) - right_out / len(outside)))
        else:
            class_gap.append(math.nan)
        judged = [i for i in inside if predicted[i] != y and len(own[i]) > 1]
        hits = [i for i in judged if label_of_region[best_region(regions, zero_shot, i)] == feature]
        decided += [predicted[i] for i in hits]
        if judged and class_gap[-1] < 0:
            shares.append(len(hits) / len(judged))
    defined = [g for g in class_gap if not math.isnan(g)]
    return Score(
        class_gap=class_gap,
        gap=sum(map(abs, defined)) if defined else math.nan,
        influence=max(shares) if shares else math.nan,
        two_sided=any(g > 0 for g in defined) and any(g < 0 for g in defined),
        pull_class=first_best([decided.count(y) for y in range(n_classes)]) if decided else -1,
        n_regions=sum(int(c) == feature for c in label_of_region),
        n_images=sum(shows),
        n_errors=sum(shown and predicted[i] != zero_shot.label[i] for i, shown in enumerate(shows)),
        n_decided=len(decided),
        counts=counts,
    )


def reduced(clustering: Clustering, feature: Any, position: int) -> list[float]:
    """Position mean off, centred, normalised, on the axes, normalised."""
    mean = clustering.position_mean[max(position, 0)]
    left = [float(f) - float(m) - float(c) for f, m, c in zip(feature, mean, clustering.center, strict=True)]
    length = math.sqrt(sum(v * v for v in left))
    on_axes = [sum(float(a) * v for a, v in zip(axis, left, strict=True)) / length for axis in clustering.components]
    length = math.sqrt(sum(v * v for v in on_axes))
    return [v / length for v in on_axes]


def assigned(clustering: Clustering, feature: Any, position: int) -> int:
    """The nearest medoid if its cosine reaches that cluster's threshold, else noise."""
    vector = reduced(clustering, feature, position)
    closeness = [cosine(vector, medoid) for medoid in clustering.medoid_vector]
    if not closeness:
        return NOISE
    nearest = first_best(closeness)
    return nearest if closeness[nearest] >= clustering.min_similarity[nearest] else NOISE


def silhouette(vectors: Any, label: Any) -> float:
    """Mean of (b - a) / max(a, b) with the distance 1 - cos."""
    n, clusters = len(vectors), sorted(set(map(int, label)))
    total = 0.0
    for i in range(n):
        mean = {}
        for c in clusters:
            others = [j for j in range(n) if label[j] == c and j != i]
            mean[c] = sum(1 - cosine(vectors[i], vectors[j]) for j in others) / len(others) if others else None
        a = mean.pop(int(label[i]))
        b = min(mean.values())
        total += 0.0 if a is None else (b - a) / max(a, b)
    return total / n


# --- evidence against chance ----------------------------------------------------------------------------------------


def wilson(right: int, n: int, level: float) -> tuple[float, float]:
    """The two rates p at which |right/n - p| = z sqrt(p (1 - p) / n), each found by bisection."""
    z, rate = NormalDist().inv_cdf(0.5 + level / 2), right / n

    def edge(inside: float, outside: float) -> float:
        for _ in range(200):
            middle = (inside + outside) / 2
            accepted = abs(rate - middle) <= z * math.sqrt(max(middle * (1 - middle), 0) / n)
            inside, outside = (middle, outside) if accepted else (inside, middle)
        return inside

    return edge(rate, 0.0), edge(rate, 1.0)


def newcombe(right_a: int, n_a: int, right_b: int, n_b: int, level: float) -> tuple[float, float]:
    """Newcombe 1998, method 10: delta = sqrt((a - l_a)^2 + (u_b - b)^2) below, epsilon = the mirror image above."""
    (low_a, high_a), (low_b, high_b) = wilson(right_a, n_a, level), wilson(right_b, n_b, level)
    a, b = right_a / n_a, right_b / n_b
    below = math.sqrt((a - low_a) ** 2 + (high_b - b) ** 2)
    above = math.sqrt((high_a - a) ** 2 + (b - low_b) ** 2)
    return a - b - below, a - b + above


def paired_limits(pairs: list[tuple[bool, bool]], z: float) -> tuple[float, float]:
    """Agresti and Min 2005: half a pair is added to each of the four cells, then Wald's limits of mean(a) - mean(b)."""
    cells = {(a, b): 0.5 for a in (False, True) for b in (False, True)}
    for pair in pairs:
        cells[pair] += 1
    total = sum(cells.values())
    mean = sum(count * (a - b) for (a, b), count in cells.items()) / total
    square = sum(count * (a - b) ** 2 for (a, b), count in cells.items()) / total
    half = z * math.sqrt((square - mean**2) / total)
    return max(mean - half, -1), min(mean + half, 1)


Margins = tuple[int, int, int]
"""Of one class: n_in, n_out, and how many of both together are right."""


def size_of_gap(right_in: int, n_in: int, right_out: int, n_out: int) -> float:
    return 2 * min(n_in, n_out) / (n_in + n_out) * abs(right_in / n_in - right_out / n_out)


def null_of_class(margins: Margins) -> dict[float, float]:
    """|gap_y| -> probability, counting the ways to choose which images are right."""
    n_in, n_out, right = margins
    found: dict[float, float] = {}
    for right_in in range(max(0, right - n_out), min(n_in, right) + 1):
        ways = math.comb(n_in, right_in) * math.comb(n_out, right - right_in) / math.comb(n_in + n_out, right)
        gap = round(size_of_gap(right_in, n_in, right - right_in, n_out), 12)
        found[gap] = found.get(gap, 0) + ways
    return found


def null_of_gap(classes: list[Margins]) -> dict[float, float]:
    """Gap -> probability when correctness is permuted within class; classes with an empty side take no part."""
    found = {0.0: 1.0}
    for margins in classes:
        if margins[0] and margins[1]:
            of_class, before, found = null_of_class(margins), found, {}
            for a, p in before.items():
                for b, q in of_class.items():
                    found[round(a + b, 12)] = found.get(round(a + b, 12), 0) + p * q
    return found


def permuted_gap(label: Any, right: Any, shows: Any, rng: np.random.Generator) -> float:
    """The gap after a literal permutation of the images' correctness within each class."""
    moved, gap = np.array(right), 0.0
    for y in sorted(set(map(int, label))):
        of_class = np.flatnonzero(np.asarray(label) == y)
        moved[of_class] = rng.permutation(moved[of_class])
        inside, outside = of_class[shows[of_class]], of_class[~shows[of_class]]
        if len(inside) and len(outside):
            gap += size_of_gap(int(moved[inside].sum()), len(inside), int(moved[outside].sum()), len(outside))
    return gap


def corrected(p: list[float]) -> list[float]:
    """Benjamini and Hochberg: the least alpha at which the step-up procedure rejects each."""
    ranked = sorted(p)
    return [min(1.0, *(len(p) * later / (k + 1) for k, later in enumerate(ranked) if later >= own)) for own in p]


def excess_influence(regions: Regions, zero_shot: ZeroShot, label_of_region: NDArray[Any], feature: int) -> float:
    """(hits - sum h) / (n - sum h) over misclassified images with the feature and more than one region."""
    n, hits, blind = 0, 0, Fraction(0)
    for image in range(regions.n_images):
        own = [r for r in range(len(regions)) if regions.image[r] == image]
        showing = [r for r in own if label_of_region[r] == feature]
        if showing and len(own) > 1 and zero_shot.predicted[image] != zero_shot.label[image]:
            n += 1
            hits += label_of_region[best_region(regions, zero_shot, image)] == feature
            blind += Fraction(len(showing), len(own))
    return float((hits - blind) / (n - blind)) if n != blind else math.nan


def signature(one: Score) -> dict[str, tuple[int, int]]:
    """(right, all) images of the pull class and of the other classes that have images on both sides, in and out."""
    found = dict.fromkeys(("pull_in", "pull_out", "other_in", "other_out"), (0, 0))
    if one.pull_class < 0:
        return found
    for y, (n_in, right_in, n_out, right_out) in enumerate(one.counts):
        side = "pull" if y == one.pull_class else "other"
        if side == "pull" or (n_in and n_out):
            for place, right, n in (("in", right_in, n_in), ("out", right_out, n_out)):
                before = found[f"{side}_{place}"]
                found[f"{side}_{place}"] = before[0] + right, before[1] + n
    return found


def standardised(one: Score) -> tuple[float, float]:
    """Accuracy without the feature, of as many images of each other class as show it, and how many cases it is worth.

    The variance of sum_y w_y x_y is sum_y w_y^2 v / n_y for class averages x_y of variance v / n_y each; a plain
    average of n cases has v / n.
    """
    others = [c for y, c in enumerate(one.counts) if y != one.pull_class and c[0] and c[2]]
    total = sum(n_in for n_in, _, _, _ in others)
    rate = sum(Fraction(n_in, total) * Fraction(right_out, n_out) for n_in, _, n_out, right_out in others)
    variance = sum(Fraction(n_in, total) ** 2 / n_out for n_in, _, n_out, _ in others)
    return float(rate), float(1 / variance)


# --- families -------------------------------------------------------------------------------------------------------


@dataclass
class Part:
    """What families are made from: one cluster."""

    medoid: list[float]
    gap: list[float]
    """Signed, NaN where undefined."""
    pull_class: int
    n_decided: int
    n_errors: int
    beyond_chance: bool


def margin(a: Part, b: Part, near: float, alike: float) -> float:
    """By how much two clusters are compatible; below 0 where they are not."""
    look = cosine(a.medoid, b.medoid)
    both_decide = a.n_decided >= 5 and b.n_decided >= 5
    if both_decide and a.pull_class != b.pull_class:
        return -3.0
    for one, other in ((a, b), (b, a)):
        counts = one.n_decided, one.n_errors, other.n_decided, other.n_errors
        if one.n_errors and other.n_errors and newcombe(*counts, 0.95)[0] > 0.5:
            return -3.0
    best = look - near
    shared = sum(not math.isnan(x) and not math.isnan(y) for x, y in zip(a.gap, b.gap, strict=True))
    if a.beyond_chance and b.beyond_chance and both_decide and a.pull_class >= 0 and shared >= 4 and look >= 0:
        act = cosine([0 if math.isnan(x) else x for x in a.gap], [0 if math.isnan(x) else x for x in b.gap])
        best = max(best, act - alike)
    return best


def families(parts: list[Part], near: float, alike: float) -> set[frozenset[int]]:
    """Join the two sets whose least compatible pair is the most compatible, while that pair is compatible."""
    sets = [frozenset([c]) for c in range(len(parts))]
    while len(sets) > 1:
        pairs = [(a, b) for i, a in enumerate(sets) for b in sets[i + 1 :]]
        least = [min(margin(parts[i], parts[j], near, alike) for i in a for j in b) for a, b in pairs]
        best = first_best(least)
        if least[best] < 0:
            break
        a, b = pairs[best]
        sets = [s for s in sets if s not in (a, b)] + [a | b]
    return set(sets)
