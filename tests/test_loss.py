"""The losses of mitigation against the paper's formulas, written again with loops and math.exp."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from ravl.mitigation.loss import class_losses, combine, contrastive_loss, group_dro, region_losses

TAU = 0.3


def unit(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


# --- oracles ---------------------------------------------------------------------------------------------------------


def dot(a: Tensor, b: Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def slow_region_losses(
    region: Tensor, image_of: Tensor, spurious: Tensor, label: Tensor, class_text: Tensor, tau: float
) -> tuple[list[float], list[float]]:
    """L_R^i and L_A^i of the images that take part, in order."""
    y_of = label.tolist()
    batch = range(len(y_of))
    labelled = [j for j in batch if y_of[j] >= 0]
    own = {i: [r for r in range(len(region)) if image_of[r] == i and not spurious[r]] for i in batch}
    marks = [r for r in range(len(region)) if spurious[r]]
    members = [i for i in labelled if own[i]]

    def sigma(r: int, y: int) -> float:
        return math.exp(dot(region[r], class_text[y]) / tau)

    def sigma_m(i: int, y: int) -> float:
        return max(sigma(r, y) for r in own[i])

    relevant, other = [], []
    for i in members:
        right = sigma_m(i, y_of[i])
        below = sum(sigma_m(i, y_of[j]) for j in labelled)
        below += sum(max(sigma(r, y_of[k]) for k in labelled) for r in marks)
        relevant.append(-math.log(right / below))
        below = right + sum(sigma_m(j, y_of[i]) for j in members if y_of[j] != y_of[i])
        below += sum(sigma(r, y_of[i]) for r in marks)
        other.append(-math.log(right / below))
    return relevant, other


def slow_contrastive(image: Tensor, text: Tensor, label: list[int] | None, scale: float) -> float:
    """Mean over both directions and all rows of the mean of -log softmax over the row's positives."""
    n = len(image)
    score = [[scale * dot(image[i], text[j]) for j in range(n)] for i in range(n)]
    total = 0.0
    for i in range(n):
        partners = [j for j in range(n) if j == i or (label is not None and label[i] == label[j] != -1)]
        for line in (score[i], [score[j][i] for j in range(n)]):
            whole = math.log(sum(math.exp(v) for v in line))
            total += sum(whole - line[j] for j in partners) / len(partners) / 2
    return total / n


def batch(
    seed: int,
    images: int = 6,
    classes: int = 4,
    most: int = 4,
    share: float = 0.3,
    unlabelled: float = 0.2,
    dim: int = 5,
) -> dict[str, Any]:
    """A random batch: 0 .. `most` regions an image, a share of them spurious, a share of the images without label."""
    g = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, most + 1, (images,), generator=g)
    n = int(counts.sum())
    label = torch.randint(0, classes, (images,), generator=g)
    label[torch.rand(images, generator=g) < unlabelled] = -1
    return {
        "region": unit(n, dim, seed=seed + 1),
        "image_of": torch.repeat_interleave(torch.arange(images), counts),
        "spurious": torch.rand(n, generator=g) < share,
        "label": label,
        "class_text": unit(classes, dim, seed=seed + 2),
        "tau": TAU,
    }


def check(given: dict[str, Any]) -> None:
    slow = slow_region_losses(**given)
    for reduction in ("mean", "sum"):
        fast = region_losses(**given, reduction=reduction)
        for got, terms in zip(fast, slow, strict=True):
            want = sum(terms) / (max(len(terms), 1) if reduction == "mean" else 1)
            assert got.shape == ()
            assert float(got) == pytest.approx(want, rel=1e-9, abs=1e-12)


# --- region losses ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 7),
    st.integers(1, 5),
    st.integers(0, 4),
    st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_region_losses_are_the_formulas(
    seed: int, images: int, classes: int, most: int, share: float, unlabelled: float
) -> None:
    check(batch(seed, images, classes, most, share, unlabelled))


def by_hand(label: list[int], image_of: list[int], spurious: list[bool], classes: int = 3) -> dict[str, Any]:
    return {
        "region": unit(len(image_of), 4, seed=5),
        "image_of": torch.tensor(image_of, dtype=torch.long),
        "spurious": torch.tensor(spurious, dtype=torch.bool),
        "label": torch.tensor(label, dtype=torch.long),
        "class_text": unit(classes, 4, seed=6),
        "tau": TAU,
    }


DEGENERATE = {
    "no spurious region": by_hand([0, 1, 1], [0, 0, 1, 2], [False] * 4),
    "all spurious": by_hand([0, 1], [0, 1, 1], [True] * 3),
    "one image": by_hand([2], [0, 0, 0], [False, True, False]),
    "one region": by_hand([1], [0], [False]),
    "one class": by_hand([0, 0, 0], [0, 1, 1, 2], [False, False, True, False], classes=1),
    "an image without regions": by_hand([0, 1, 2], [0, 0, 2, 2], [False, True, False, True]),
    "an image of spurious regions only": by_hand([0, 1, 2], [0, 1, 1, 2], [False, True, True, False]),
    "an unlabelled image with a spurious region": by_hand([0, -1, 2], [0, 1, 1, 2], [False, True, False, False]),
    "no label": by_hand([-1, -1], [0, 1], [False, True]),
    "no region": by_hand([0, 1], [], []),
    "classes that the batch does not have": by_hand([3, 3], [0, 1], [False, True][:2], classes=9),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_batches(name: str) -> None:
    check(DEGENERATE[name])


@pytest.mark.parametrize("name", ["all spurious", "no label", "no region"])
def test_a_batch_without_participants_costs_nothing_and_has_zero_gradient(name: str) -> None:
    given = DEGENERATE[name] | {"region": DEGENERATE[name]["region"].clone().requires_grad_()}
    relevant, other = region_losses(**given)
    (relevant + other).backward()
    assert float(relevant.detach()) == float(other.detach()) == 0
    assert torch.equal(given["region"].grad, torch.zeros_like(given["region"]))


def test_an_unlabelled_images_spurious_region_counts_and_its_relevant_one_does_not() -> None:
    given = DEGENERATE["an unlabelled image with a spurious region"]
    base = region_losses(**given)

    def without(row: int) -> tuple[Tensor, Tensor]:
        left = torch.arange(4) != row
        return region_losses(**given | {k: given[k][left] for k in ("region", "image_of", "spurious")})

    assert all(float(less) < float(all_) for less, all_ in zip(without(1), base, strict=True))
    # to rounding: a product of another shape may be summed in another order
    assert all(float(same) == pytest.approx(float(all_), rel=1e-6) for same, all_ in zip(without(2), base, strict=True))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("seed", range(4))
def test_gradients_are_those_of_the_losses(seed: int, reduction: str) -> None:
    given = batch(seed)
    rest = {k: given[k] for k in ("image_of", "spurious", "label", "tau")}

    def both(region: Tensor, class_text: Tensor) -> Tensor:
        return torch.stack(region_losses(region, class_text=class_text, reduction=reduction, **rest))

    assert torch.autograd.gradcheck(both, (given["region"].requires_grad_(), given["class_text"].requires_grad_()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_temperatures_and_extreme_cosines_stay_finite(dtype: torch.dtype) -> None:
    class_text = torch.eye(3, dtype=dtype)
    for sign in (1, -1):  # every region exactly on, or exactly against, a class direction
        region = (sign * class_text[[0, 1, 2, 0, 1, 2]]).requires_grad_()
        for wrong in (0, 1):  # its own class, or another one
            label = torch.tensor([0, 1, 2]).roll(wrong)
            spurious = torch.tensor([False, False, False, True, True, True])
            losses = region_losses(region, torch.tensor([0, 1, 2, 0, 1, 2]), spurious, label, class_text, 0.01)
            gradient = torch.autograd.grad(losses[0] + losses[1], region)[0]
            assert all(math.isfinite(float(loss.detach())) for loss in losses)
            assert gradient.isfinite().all()


@pytest.mark.parametrize("tau", [0.01, 0.07])
def test_half_precision_under_autocast_stays_finite_and_close(tau: float) -> None:
    """bfloat16 vectors, as the model gives them under autocast: the losses themselves are computed in float32."""
    given = batch(11, images=8) | {"tau": tau}
    exact = {k: given[k].to(torch.bfloat16).double() for k in ("region", "class_text")}  # the same rounded vectors
    half = {k: given[k].to(torch.bfloat16).requires_grad_() for k in ("region", "class_text")}
    with torch.autocast("cpu", torch.bfloat16):
        losses = region_losses(**given | half)
        contrast = contrastive_loss(half["region"][:4], half["region"][4:8], None, 1 / tau)
    want = region_losses(**given | exact)
    for got, expected in zip((*losses, contrast), (*want, None), strict=True):
        assert got.dtype == torch.float32
        assert got.isfinite()
        assert expected is None or float(got.detach()) == pytest.approx(float(expected), rel=1e-4)
    (losses[0] + losses[1] + contrast).backward()
    for name, vectors in half.items():
        assert vectors.grad is not None, name
        assert vectors.grad.isfinite().all()


def test_the_order_of_images_regions_and_classes_means_nothing() -> None:
    given = batch(3, images=7)
    base = torch.stack(region_losses(**given))
    g = torch.Generator().manual_seed(0)
    images, rows = torch.randperm(7, generator=g), torch.randperm(len(given["region"]), generator=g)
    classes = torch.randperm(4, generator=g)
    label = torch.where(given["label"] < 0, -1, torch.argsort(classes)[given["label"].clamp(min=0)])
    moved = {
        "region": given["region"][rows],
        "image_of": torch.argsort(images)[given["image_of"][rows]],
        "spurious": given["spurious"][rows],
        "label": label[images],
        "class_text": given["class_text"][classes],
        "tau": TAU,
    }
    assert torch.allclose(torch.stack(region_losses(**moved)), base, rtol=1e-12)


def test_losses_fall_as_relevant_regions_turn_to_their_class_and_spurious_ones_away() -> None:
    class_text = torch.eye(4, dtype=torch.float64)[:3]
    label, image_of = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2, 0])
    spurious = torch.tensor([False, False, False, True])
    away = torch.tensor([[0.0, 0, 0, 1]], dtype=torch.float64)

    def at(own: float, mark: float) -> tuple[float, float]:
        relevant = own * class_text + math.sqrt(1 - own**2) * away
        region = torch.cat([relevant, mark * class_text[:1] + math.sqrt(1 - mark**2) * away])
        loss = region_losses(region, image_of, spurious, label, class_text, 0.07)
        return float(loss[0]), float(loss[1])

    for first, second in ((at(0.3, 0.5), at(0.6, 0.5)), (at(0.6, 0.5), at(0.6, 0.1)), (at(0.6, 0.5), at(1, 0.5))):
        assert second[0] < first[0]
        assert second[1] < first[1]
    assert max(at(1, 0)) < 1e-5  # perfect separation costs nothing


def test_the_sum_is_the_mean_times_the_images_that_take_part() -> None:
    given = DEGENERATE["an image of spurious regions only"]
    mean, total = (torch.stack(region_losses(**given, reduction=how)) for how in ("mean", "sum"))
    assert torch.allclose(total, 2 * mean)
    with pytest.raises(ValueError, match="mean or sum, got 'max'"):
        region_losses(**given, reduction="max")


# --- contrastive loss ------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.booleans())
def test_contrastive_loss_is_the_formula(seed: int, n: int, labelled: bool) -> None:
    image, text = unit(n, 4, seed=seed), unit(n, 4, seed=seed + 1)
    label = torch.randint(-1, 3, (n,), generator=torch.Generator().manual_seed(seed)) if labelled else None
    want = slow_contrastive(image, text, None if label is None else label.tolist(), 5.0)
    assert float(contrastive_loss(image, text, label, 5.0)) == pytest.approx(want, rel=1e-9)


def test_contrastive_loss_without_labels_is_that_of_clip() -> None:
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    image, text = unit(5, 4, seed=0), unit(5, 4, seed=1)
    want = image_text_contrastive_loss(10 * text @ image.T)
    assert float(contrastive_loss(image, text, None, 10.0)) == pytest.approx(float(want), rel=1e-12)


def test_equal_captions_of_one_class_are_not_negatives() -> None:
    classes = torch.eye(2, dtype=torch.float64)
    label = torch.tensor([0, 0, 1, 1])
    perfect = contrastive_loss(classes[label], classes[label], label, 100.0)
    assert float(perfect) == pytest.approx(math.log(2))  # two equal positives share the probability
    assert float(contrastive_loss(classes[label], classes[label.flip(0)], label, 100.0)) > 50


def test_contrastive_gradients_and_extremes() -> None:
    image, text = unit(4, 3, seed=0).requires_grad_(), unit(4, 3, seed=1).requires_grad_()
    label = torch.tensor([0, 0, -1, -1])
    assert torch.autograd.gradcheck(lambda i, t: contrastive_loss(i, t, label, 4.0), (image, text))
    ends = torch.eye(3)[[0, 0, 1]].requires_grad_()
    loss = contrastive_loss(ends, -ends.detach(), None, 100.0)
    assert torch.autograd.grad(loss, ends)[0].isfinite().all()


# --- the whole -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weight", "total"), [(0.8, 0.8 * 2 + 0.2 * 10), (1.0, 2.0), (0.0, 10.0)])
def test_the_total_is_the_weighted_sum(weight: float, total: float) -> None:
    parts = combine(torch.tensor(2.0), torch.tensor(3.0), torch.tensor(7.0), weight)
    assert float(parts.total) == pytest.approx(total)
    assert {name: float(part) for name, part in parts.named.items() if name != "loss"} == {
        **{"contrastive": 2, "relevant": 3, "spurious": 7}
    }


# --- classification and groups ---------------------------------------------------------------------------------------


def test_class_losses_are_the_cross_entropy_of_zero_shot_classification() -> None:
    image, text, label = unit(6, 4, seed=0), unit(3, 4, seed=1), [0, 2, -1, 1, 1, 0]
    got = class_losses(image, text, torch.tensor(label), TAU).tolist()
    for i, y in enumerate(label):
        whole = sum(math.exp(dot(image[i], text[k]) / TAU) for k in range(3))
        want = 0 if y < 0 else -math.log(math.exp(dot(image[i], text[y]) / TAU) / whole)
        assert got[i] == pytest.approx(want, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 4))
def test_group_dro_is_algorithm_one(seed: int, images: int, groups: int) -> None:
    g = torch.Generator().manual_seed(seed)
    losses = torch.rand(images, generator=g, dtype=torch.float64) * 3
    group = torch.randint(0, groups, (images,), generator=g)
    before = torch.rand(groups, generator=g, dtype=torch.float64)
    before /= before.sum()
    found = group_dro(losses, group, before, 0.5)
    mean = []
    for k in range(groups):
        own = [losses[i].item() for i in range(images) if group[i] == k]
        mean.append(sum(own) / len(own) if own else 0.0)
    raised = [before[k].item() * math.exp(0.5 * mean[k]) for k in range(groups)]
    weights = [value / sum(raised) for value in raised]
    assert found.weights.tolist() == pytest.approx(weights, rel=1e-9)
    assert found.loss.item() == pytest.approx(sum(q * loss for q, loss in zip(weights, mean, strict=True)), rel=1e-9)


def test_group_dro_turns_to_the_worst_group_and_its_weights_have_no_gradient() -> None:
    losses = torch.tensor([1.0, 1.0, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    weights = torch.full((2,), 0.5, dtype=torch.float64)
    for _ in range(400):
        found = group_dro(losses, torch.tensor([0, 0, 0, 1]), weights)
        assert not found.weights.requires_grad
        weights = found.weights
    assert weights[1] > 0.99
    found.loss.backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == pytest.approx([weights[0].item() / 3] * 3 + [weights[1].item()], rel=1e-9)
