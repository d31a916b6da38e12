"""The formulas of the discovery stages a second time: slower, plainer, with loops, written from the definitions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

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
