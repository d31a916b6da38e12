"""From the vectors of a batch to its loss: the terms that the method declares, with everything fixed about them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ravl.config import MitigationConfig
from ravl.mitigation.baselines import METHODS
from ravl.mitigation.batches import Batch
from ravl.mitigation.loss import LossParts, class_losses, combine, contrastive_loss, group_dro, region_losses


@dataclass(frozen=True)
class RegionVectors:
    """Regions of a batch. vector: (n, D) unit. owner: (n,) image within the batch. spurious: (n,) bool."""

    vector: Tensor
    owner: Tensor
    spurious: Tensor


class Objective:
    """The loss of a method. Its only state are the weights of the groups, which change from step to step.

    class_text: (Y, D), captions: (U, D) unit vectors, constant. scale: of the contrastive logits. own_captions: whether
    the images have captions of their own, instead of those made from class names. group_weights: (G,) float64 on the
    CPU, equal at first.
    """

    def __init__(
        self,
        class_text: Tensor,
        captions: Tensor,
        scale: float,
        config: MitigationConfig,
        n_groups: int,
        own_captions: bool,
    ) -> None:
        self.method = METHODS[config.method]
        self.class_text, self.captions, self.scale, self.config = class_text, captions, scale, config
        self.own_captions = own_captions
        self.group_weights = torch.full((n_groups,), 1 / n_groups, dtype=torch.float64)

    def __call__(self, image: Tensor, batch: Batch, regions: RegionVectors | None) -> LossParts:
        """image: (B, D). regions: needed by the term `regions` alone."""
        config, term = self.config, self.method.term
        label = batch.label.to(image.device)
        contrastive = self._contrastive(image, batch, label) if self.method.contrastive else None
        if term == "regions" and regions is not None and contrastive is not None:
            losses = region_losses(
                regions.vector, regions.owner, regions.spurious, label, self.class_text, config.tau,
                config.reduction,
            )  # fmt: skip
            return combine(contrastive, *losses, config.contrastive_weight)
        if term in ("classes", "groups"):
            single = class_losses(image, self.class_text, label, config.tau)
            classes, weights = single.mean(), None
            if term == "groups":
                grouped = group_dro(single, batch.group.to(image.device), self.group_weights.to(image.device))
                classes, weights = grouped.loss, grouped.weights.cpu()
            share = config.contrastive_weight
            total = classes if contrastive is None else share * contrastive + (1 - share) * classes
            return LossParts(total, contrastive, classes=classes, group_weights=weights)
        assert contrastive is not None, "a method has a loss"
        return LossParts(contrastive, contrastive)

    def _contrastive(self, image: Tensor, batch: Batch, label: Tensor) -> Tensor:
        """Equal captions, or captions made from equal class names, are positives of each other."""
        caption = batch.caption.to(image.device)
        positive = caption if self.own_captions else label
        return contrastive_loss(image, self.captions[caption], positive, self.scale)
