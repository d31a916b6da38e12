"""Counterfactual evidence: what the model answers when a feature is taken out of an image, or put into one.

For every image that shows a feature, all of the feature's regions are removed and the image is classified again, by
each operator of `ravl.discovery.operators`. For every misclassified one the control removes other regions of the *same*
image and of equal area: an error that goes with any patch of that size says nothing about the feature. And the
feature's crops are pasted into images that are classified right and lack it.

Nothing is concluded here (see `ravl.discovery.evidence`). Which regions serve as control, which image as donor and
which crop is pasted where is drawn per image and seeded with the image's own key, so that neither the order of the
images nor the batch size changes anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ravl.config import EvidenceConfig
from ravl.data.painting import paste
from ravl.discovery.operators import encode_removed, usable
from ravl.discovery.regions import ImagesOf
from ravl.discovery.scoring import best_for_class
from ravl.discovery.zero_shot import product, unit
from ravl.tables import Counterfactuals, FeatureScores, Regions, Report, Significance, Step, ZeroShot, quiet
from ravl.vlm.interface import VisionLanguageModel

ALIKE = 1.25
"""Areas count as equal up to this ratio; only where no such region is left, the closest one serves as control."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Scene:
    """The audited images as the experiments need them.

    feature_of: (R,) feature id of each region, or NOISE. text: (Y, D) unit class vectors. key: (I,) uint64, a digest of
    each image that does not depend on the order of the images.
    """

    vlm: VisionLanguageModel
    images_of: ImagesOf
    text: NDArray[np.float32]
    regions: Regions
    zero_shot: ZeroShot
    feature_of: NDArray[np.int64]
    key: NDArray[np.uint64]
    seed: int

    def rng(self, image: int, purpose: int) -> np.random.Generator:
        """The random numbers of one image for one purpose."""
        return np.random.default_rng([self.seed, purpose, int(self.key[image])])

    @cached_property
    def _images_with(self) -> dict[int, Rows]:
        known = self.feature_of >= 0
        pairs = np.unique(np.stack([self.feature_of[known], self.regions.image[known].astype(np.int64)], 1), axis=0)
        edges = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
        return {int(part[0, 0]): part[:, 1] for part in np.split(pairs, edges[1:]) if len(part)}

    def images_with(self, feature: int) -> Rows:
        """Ids of the images that show a feature, rising."""
        return self._images_with.get(int(feature), np.zeros(0, np.int64))

    def pictures(self, ids: Sequence[int]) -> dict[int, Image.Image]:
        """The decoded images with these ids, each once."""
        distinct = list(dict.fromkeys(ids))
        return dict(zip(distinct, self.images_of(distinct), strict=True))

    def some(self, images: Rows, count: int) -> Rows:
        """At most `count` of these images, rising: those with the smallest keys."""
        chosen = images[np.argsort(self.key[images], kind="stable")[:count]]
        return np.sort(chosen)

    def classes(self, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        """(B,) predicted classes."""
        best: NDArray[np.int64] = product(unit(vectors), unit(self.text).T).argmax(1)
        return best


def worth_testing(scores: FeatureScores, significance: Significance, alpha: float) -> NDArray[np.int32]:
    """Ids of the features that removal could say something about, in rank order.

    Those with enough support whose gap is beyond chance, and those that pass the paper's rule.
    """
    with np.errstate(invalid="ignore"):
        beyond = significance.q < alpha
    rows = significance.supported & (beyond | scores.passes)
    return scores.feature[rows]


def counterfactuals(
    scene: Scene, features: Sequence[int], pull: Sequence[int], config: EvidenceConfig, batch_size: int,
    report: Report = quiet,
) -> Counterfactuals:  # fmt: skip
    """Remove and paste each of the features; one row per feature and image, in the order of `features`.

    pull: the features' pull classes, -1 for none. Cost: one forward pass per row and operator, another one per
    misclassified row, one per paste. Raises ModelError when no operator can be applied.
    """
    operators = usable(scene.vlm, config.operators)
    chosen = [scene.some(scene.images_with(f), config.max_images) for f in features]
    feature = np.repeat(np.asarray(features, np.int64), [len(rows) for rows in chosen])
    image = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    pastes = [_pastes(scene, f, y, config.max_pasted) for f, y in zip(features, pull, strict=True) if y >= 0]
    trial = np.concatenate([p for p in pastes if len(p)] or [np.zeros((0, 4), np.int64)])
    total, done = len(feature) + len(trial), 0

    def step(rows: Rows) -> None:
        nonlocal done
        done += len(rows)
        report(Step("counterfactuals", done, total))

    after = np.full((len(feature), len(operators)), -1)
    control = after.copy()
    for rows in _batches(image, batch_size):
        after[rows], control[rows] = _remove(scene, feature[rows], image[rows], operators)
        step(rows)
    pasted = np.full(len(trial), -1)
    for rows in _batches(trial[:, 1], batch_size):
        pasted[rows] = _paste(scene, trial[rows])
        step(rows)
    pasted_feature, pasted_image, pasted_region, pasted_place = trial.astype(np.int32).T
    return Counterfactuals(
        operators=operators,
        feature=feature.astype(np.int32),
        image=image.astype(np.int32),
        after=after.astype(np.int16),
        control=control.astype(np.int16),
        pasted_feature=pasted_feature,
        pasted_image=pasted_image,
        pasted_region=pasted_region,
        pasted_place=pasted_place,
        pasted_after=pasted.astype(np.int16),
    )


def _batches(image: Rows, size: int) -> Iterator[Rows]:
    """Row numbers in the order of their images, so that an image is decoded about once."""
    order = np.argsort(image, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


# --- removing --------------------------------------------------------------------------------------------------------


def _remove(
    scene: Scene, feature: Rows, image: Rows, operators: tuple[str, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(B, O) classes without the feature, and without the control regions (-1 where there are none)."""
    own = [_own(scene, f, i) for f, i in zip(feature, image, strict=True)]
    wrong = ~scene.zero_shot.correct[image]
    instead = [
        control_regions(scene.regions, i, rows, scene.rng(i, 0)) if w else rows[:0]
        for i, rows, w in zip(image.tolist(), own, wrong, strict=True)
    ]
    donor = [_donor(scene, f, i) if "transplant" in operators else -1 for f, i in zip(feature, image, strict=True)]
    pictures = scene.pictures([*image.tolist(), *(d for d in donor if d >= 0)])

    def answers(rows: list[int], regions: list[Rows], operator: str) -> NDArray[np.int64]:
        without = encode_removed(
            scene.vlm,
            [pictures[int(image[r])] for r in rows],
            [scene.regions.box[chosen] for chosen in regions],
            [_masks(scene.regions, chosen) for chosen in regions],
            operator,
            [pictures.get(donor[r]) for r in rows],
        )
        known: NDArray[np.int64] = np.where(without.possible, scene.classes(without.vector), -1)
        return known

    everyone, controlled = list(range(len(image))), [r for r, rows in enumerate(instead) if len(rows)]
    after, control = np.full((2, len(image), len(operators)), -1)
    for column, operator in enumerate(operators):
        after[:, column] = answers(everyone, own, operator)
        if controlled:
            control[controlled, column] = answers(controlled, [instead[r] for r in controlled], operator)
    return after, control


def _own(scene: Scene, feature: int, image: int) -> Rows:
    rows = scene.regions.rows_of(int(image))
    own: Rows = rows.start + np.flatnonzero(scene.feature_of[rows] == feature)
    return own


def _masks(regions: Regions, chosen: Rows) -> list[NDArray[np.bool_] | None]:
    return [regions.mask_of(int(r)) for r in chosen]


def _donor(scene: Scene, feature: int, image: int) -> int:
    """A random image of the same class without the feature; -1 if there is none."""
    same = np.flatnonzero(scene.zero_shot.label == scene.zero_shot.label[image])
    free = np.setdiff1d(same, scene.images_with(feature))
    free = free[np.argsort(scene.key[free], kind="stable")]  # an order that permuting the images does not change
    return int(free[scene.rng(image, 1).integers(len(free))]) if len(free) else -1


def control_regions(regions: Regions, image: int, own: Rows, rng: np.random.Generator) -> Rows:
    """Random other regions of an image, one of equal area (up to ALIKE, else the closest) for each of its `own`.

    They overlap none of `own` by more than half. Empty when fewer than half of the area can be matched.
    """
    rows = regions.rows_of(image)
    area = dict(zip(range(rows.start, rows.stop), region_areas(regions, rows).tolist(), strict=True))
    taken = set(own.tolist())
    rest = [r for r in area if r not in taken and not _covered(regions, r, own)]
    rest = [rest[j] for j in rng.permutation(len(rest))]
    chosen: list[int] = []
    for wanted in sorted((area[r] for r in taken), reverse=True):
        if not rest:
            break
        ratio = np.abs(np.log([area[r] / wanted for r in rest]))
        close = np.flatnonzero(ratio <= np.log(ALIKE))
        chosen.append(rest.pop(int(close[0]) if len(close) else int(ratio.argmin())))
    enough = 2 * sum(area[r] for r in chosen) >= sum(area[r] for r in taken)
    return np.array(sorted(chosen), np.int64) if enough else own[:0]


def region_areas(regions: Regions, rows: slice) -> NDArray[np.int64]:
    """(n,) pixels of some regions: of the mask where a region has one, else of its box."""
    side = (regions.box[rows, 2:] - regions.box[rows, :2]).astype(np.int64)
    masks = (regions.mask_of(r) for r in range(rows.start, rows.stop))
    return np.array([int(a) if m is None else max(1, int(m.sum())) for a, m in zip(side.prod(1), masks, strict=True)])


def _covered(regions: Regions, region: int, own: Rows) -> bool:
    """Whether more than half of a region's box lies in one of `own`."""
    box, others = regions.box[region].astype(np.int64), regions.box[own].astype(np.int64)
    side = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = side.clip(0).prod(1).max(initial=0)
    return bool(2 * shared > (box[2:] - box[:2]).prod())


# --- pasting ---------------------------------------------------------------------------------------------------------


def _pastes(scene: Scene, feature: int, pull: int, count: int) -> NDArray[np.int64]:
    """(P, 4) feature, image, region whose crop is pasted, region that it covers.

    Images: classified right, of another class than the pull class, without the feature, with a region to spare beside
    the one that speaks most for their class.
    """
    zero_shot, regions = scene.zero_shot, scene.regions
    members = np.flatnonzero(scene.feature_of == feature)
    members = members[np.lexsort((*regions.box[members].T, scene.key[regions.image[members]]))]
    free = np.flatnonzero(zero_shot.correct & (zero_shot.label != pull) & (np.diff(regions.starts) > 1))
    free = scene.some(np.setdiff1d(free, scene.images_with(feature)), count)
    keep = best_for_class(regions, zero_shot.region, zero_shot.label)
    trials = []
    for image in free.tolist():
        rng, rows = scene.rng(image, 2), regions.rows_of(image)
        places = [r for r in range(rows.start, rows.stop) if r != keep[image]]
        trials.append((feature, image, members[rng.integers(len(members))], places[rng.integers(len(places))]))
    return np.array(trials, np.int64).reshape(-1, 4)


def _paste(scene: Scene, trial: NDArray[np.int64]) -> NDArray[np.int64]:
    """(B,) classes of images with a crop pasted in."""
    regions = scene.regions
    _, image, region, place = trial.T
    source = regions.image[region].astype(np.int64)
    pictures = scene.pictures([*image.tolist(), *source.tolist()])
    made = []
    for i, s, r, p in zip(image.tolist(), source.tolist(), region, place, strict=True):
        crop = pictures[s].crop(tuple(int(v) for v in regions.box[r]))  # type: ignore[arg-type]
        if (mask := regions.mask_of(int(r))) is not None:  # of the region alone, not of what lies beside it in its box
            crop.putalpha(Image.fromarray(mask))
        made.append(paste(pictures[i], crop, regions.box[p]))
    return scene.classes(scene.vlm.encode_images(made))
