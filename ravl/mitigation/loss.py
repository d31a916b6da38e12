"""The losses of region-aware fine-tuning (Varma et al. 2024, arXiv 2411.04097), as pure functions of tensors.

Letters: B images of a batch, n regions of all its images, Y classes, D dimensions, tau temperature. All vectors are
unit. sigma(r, y) = exp(cos(r, text_y) / tau) and sigma_m(A, y) = max over r in A of sigma(r, y). Everything is computed
as logits and logsumexp, so nothing overflows at small temperatures; rows that take no part are left out before it.
Vectors of half precision are taken to float32 first, also under autocast: at tau = 0.01 the rounding of a bfloat16
cosine is a factor of 1.5 of sigma.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

GROUP_STEP = 0.01
"""How fast group DRO turns to the group of the largest loss (eta of Sagawa et al. 2020)."""


@dataclass(frozen=True)
class LossParts:
    """total = lambda * contrastive + (1 - lambda) * the other parts; scalars with gradient, None: not a part of it.

    contrastive: L_CL. relevant: L_R, an image's relevant regions shall name its class, and more so than spurious ones
    name any class. spurious: L_A, they shall do it more than spurious regions and than relevant ones of other classes.
    classes: cross-entropy over the class prompts, or its group DRO; then group_weights (G,) are those of the next step.
    """

    total: Tensor
    contrastive: Tensor | None = None
    relevant: Tensor | None = None
    spurious: Tensor | None = None
    classes: Tensor | None = None
    group_weights: Tensor | None = None

    @property
    def named(self) -> dict[str, Tensor]:
        """The parts that there are, as the log calls them."""
        parts = {"loss": self.total, "contrastive": self.contrastive, "relevant": self.relevant}
        parts |= {"spurious": self.spurious, "classes": self.classes}
        return {name: value for name, value in parts.items() if value is not None}


@dataclass(frozen=True)
class GroupLoss:
    """Group DRO of a batch. loss: scalar with gradient. weights: (G,) of the groups, summing to 1, for the next one."""

    loss: Tensor
    weights: Tensor


def contrastive_loss(image: Tensor, text: Tensor, label: Tensor | None, logit_scale: Tensor | float) -> Tensor:
    """The symmetric loss of CLIP on B pairs, image (B, D) and text (B, D).

    label: (B,) or None. Captions of one class count as positives of each other with equal weight, else equal captions
    would be negatives; a label of -1 (the caption names no class) is a positive of itself alone.
    Deviation: CLIP itself knows no labels; with `label=None` this is its loss.
    """
    logits = _cosines(image, text, logit_scale)
    same = torch.eye(len(image), dtype=torch.bool, device=image.device)
    if label is not None:
        same = same | ((label[:, None] == label) & (label >= 0)[:, None])
    target = same.to(logits.dtype) / same.sum(1, keepdim=True)
    return -(target * (logits.log_softmax(1) + logits.T.log_softmax(1))).sum(1).mean() / 2


def region_losses(
    region: Tensor,
    image_of: Tensor,
    spurious: Tensor,
    label: Tensor,
    class_text: Tensor,
    tau: float,
    reduction: str = "mean",
) -> tuple[Tensor, Tensor]:
    """L_R and L_A of a batch.

    region: (n, D). image_of: (n,) index into the batch. spurious: (n,) bool, region of a confirmed feature. label: (B,)
    class, or -1 where it is not known. class_text: (Y, D). reduction: mean or sum over the images that take part.

    With R_i^r the relevant regions of image i, R_B^s all spurious regions of the batch and y_i the class of image i:
    L_R^i = -log sigma_m(R_i^r, y_i) / [sum_{j in B} sigma_m(R_i^r, y_j) + sum_{r in R_B^s} max_{k in B} sigma(r, y_k)]
    L_A^i = -log sigma_m(R_i^r, y_i) / [sigma_m(R_i^r, y_i) + sum_{j: y_j != y_i} sigma_m(R_j^r, y_i)
                                        + sum_{r in R_B^s} sigma(r, y_i)]

    An image without a label or without a relevant region has no loss of its own and is no j of L_A, but its spurious
    regions count. The sum over y_j, and the maximum over y_k, run over the labelled images of the batch, the sum with
    multiplicity; an image needs no relevant region for that. Without participants both losses are 0 with zero gradient.
    Deviation: the paper sums over the batch; `mean` keeps the balance with the contrastive loss at any batch size.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be mean or sum, got {reduction!r}.")
    logits = _cosines(region, class_text) / tau
    relevant = ~spurious & (label[image_of] >= 0)
    members, row_of = torch.unique(image_of[relevant], return_inverse=True)
    if not len(members):
        nothing = logits.sum() * 0
        return nothing, nothing
    # (P, Y): log sigma_m(R_i^r, y) of the P images that take part
    best = logits.new_full((len(members), logits.shape[1]), -torch.inf)
    best = best.scatter_reduce(0, row_of[:, None].expand(-1, logits.shape[1]), logits[relevant], "amax")
    own_label = label[members]
    own = best.gather(1, own_label[:, None])[:, 0]
    # sum over y_j in B: each class counted as often as the batch has it
    present, count = torch.unique(label[label >= 0], return_counts=True)
    marks = logits[spurious]

    rivals = [best[:, present] + count.to(best.dtype).log()]
    if len(marks):
        rivals.append(marks[:, present].amax(1).expand(len(members), -1))
    loss_r = torch.cat(rivals, 1).logsumexp(1) - own

    # (P, P): row i, column j: log sigma_m(R_j^r, y_i) of itself and of the images of another class; -inf for the others
    # of its own class. A row keeps its diagonal, so no row is -inf throughout and the gradient stays finite.
    itself = torch.eye(len(members), dtype=torch.bool, device=best.device)
    others = best[:, own_label].T.masked_fill(~(itself | (own_label[:, None] != own_label)), -torch.inf)
    loss_a = torch.cat([others, marks[:, own_label].T], 1).logsumexp(1) - own
    return (loss_r.mean(), loss_a.mean()) if reduction == "mean" else (loss_r.sum(), loss_a.sum())


def combine(contrastive: Tensor, relevant: Tensor, spurious: Tensor, weight: float) -> LossParts:
    """L = lambda L_CL + (1 - lambda) (L_R + L_A), with lambda = `weight` in [0, 1] (Varma et al. 2024)."""
    return LossParts(weight * contrastive + (1 - weight) * (relevant + spurious), contrastive, relevant, spurious)


def class_losses(image: Tensor, class_text: Tensor, label: Tensor, tau: float) -> Tensor:
    """(B,) cross-entropy of zero-shot classification by class_text (Y, D), at temperature tau; 0 where label is -1."""
    return cross_entropy(_cosines(image, class_text) / tau, label, reduction="none", ignore_index=-1)


def group_dro(losses: Tensor, group: Tensor, weights: Tensor, step: float = GROUP_STEP) -> GroupLoss:
    """sum_g q_g l_g with q_g <- q_g exp(step l_g) / sum, l_g the mean loss of the group's images in the batch.

    losses: (B,). group: (B,) ids below G. weights: (G,) q before. A group without an image in the batch has l_g = 0,
    as in the code of Sagawa et al. (2020, arXiv 1911.08731), whose algorithm 1 this is.
    """
    count = torch.bincount(group, minlength=len(weights))
    total = losses.new_zeros(len(weights)).index_add(0, group, losses)
    mean = total / count.clamp(min=1)
    raised = weights * torch.exp(step * mean.detach().to(weights.dtype))
    raised = raised / raised.sum()
    return GroupLoss((raised.to(mean.dtype) * mean).sum(), raised)


def _cosines(left: Tensor, right: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """(n, m) scaled products of unit vectors (n, D) and (m, D), in float32 or float64."""
    half = (torch.float16, torch.bfloat16)
    left, right = (side.float() if side.dtype in half else side for side in (left, right))
    with torch.autocast(left.device.type, enabled=False):
        return scale * left @ right.T
