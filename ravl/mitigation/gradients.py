"""The gradient of a batch, the same however the batch is cut into pieces or spread over processes.

A contrastive loss needs the vectors of all images at once, so the gradients of pieces cannot simply be added up. Where
the batch is embedded in pieces, it is done twice (GradCache, Gao et al. 2021, arXiv 2101.06983): first without
gradient, which gives all vectors, hence the loss and its gradient at every vector; then piece by piece with it.

Of the regions only those that the loss can depend on are embedded with gradient: the spurious ones, and those relevant
ones that are their image's best for some class of the batch. A pass without gradient chooses them, where that pays:
with few classes and many regions.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import normalize

from ravl.errors import RunError
from ravl.mitigation.batches import Batch
from ravl.mitigation.loss import LossParts
from ravl.mitigation.objective import Objective, RegionVectors
from ravl.mitigation.processes import Processes
from ravl.vlm.differentiable import LearningModel

T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """Some of the images of this process. pixels: (b, 3, H, W). owner: (m,) image of a region, within the piece."""

    pixels: Tensor
    owner: Tensor
    regions: Tensor | None


class Gradients:
    """Computes the loss of a batch and adds its gradient to the parameters.

    micro: images that are embedded at once. It is halved, for good, each time the memory of the device runs out; the
    gradient stays that of the whole batch.
    """

    def __init__(
        self,
        vlm: LearningModel,
        weights: dict[str, Parameter],
        objective: Objective,
        encoder: str,
        micro: int,
        half: bool = False,
        processes: Processes = Processes(),
    ) -> None:
        """half: whether the model runs in bfloat16 where autocast knows how; the loss never does."""
        self.vlm, self.weights, self.objective, self.encoder = vlm, weights, objective, encoder
        self.micro, self.half, self.processes = micro, half, processes

    def __call__(self, batch: Batch) -> LossParts:
        """The parts of the loss of the whole batch. Raises RunError when a single image does not fit into memory."""
        if self.processes.count == 1:
            parts = self._fitting(lambda: self._at_once(batch) if self.micro >= len(batch.pixels) else None)
            if parts is not None:
                return parts
        return self._in_pieces(batch)

    # --- two ways to the same gradient ----------------------------------------------------------------------------

    def _at_once(self, batch: Batch) -> LossParts:
        (piece,) = _pieces(batch, len(batch.pixels))
        if piece.regions is None or batch.spurious is None:
            image, _ = self._embed(piece)
            parts = self.objective(image, batch, None)
        else:
            enters = torch.ones(len(piece.regions), dtype=torch.bool)
            if self._pays(batch):
                with torch.no_grad():
                    enters = self._entering(self._regions(piece), batch)
            image, region = self._embed(_only(piece, enters))
            parts = self.objective(image, batch, self._beside(region, batch, enters))
        parts.total.backward()  # type: ignore[no-untyped-call]
        return parts

    def _in_pieces(self, batch: Batch) -> LossParts:
        with torch.no_grad():
            own_image, own_region = self._fitting(lambda: self._values(batch))
        enters = None if batch.spurious is None else self._entering(own_region, batch)
        image = self.processes.rows(own_image).requires_grad_()
        regions, first = None, 0
        if enters is not None:
            beside = self._beside(own_region[enters], batch, enters)
            rows = self.processes.rows
            vector, owner = rows(beside.vector).requires_grad_(), rows(beside.owner)
            regions = RegionVectors(vector, owner, rows(beside.spurious.long()).bool())
            first = int((owner < batch.first).sum())  # rows of the processes before this one
        parts = self.objective(image, batch, regions)
        parts.total.backward()  # type: ignore[no-untyped-call]
        at_image = _gradient(image)[batch.first : batch.first + len(own_image)]
        at_region = own_region[:0] if regions is None else _gradient(regions.vector)[first:]
        self._fitting(lambda: self._hand_on(batch, enters, at_image, at_region))
        self.processes.add(_gradient(weight) for weight in self.weights.values())
        return parts

    def _values(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Vectors of all images and regions of this process, on its device."""
        images, regions = [], [torch.zeros(0, self.vlm.dim, device=self.vlm.device)]
        for piece in _pieces(batch, self.micro):
            image, region = self._embed(piece)
            images.append(image)
            regions.append(region)
        return torch.cat(images), torch.cat(regions)

    def _hand_on(self, batch: Batch, enters: Tensor | None, at_image: Tensor, at_region: Tensor) -> None:
        """Embed again, with gradient, and hand the gradients at the vectors on to the parameters."""
        image_row = region_row = 0
        for piece in _pieces(batch, self.micro, enters):
            image, region = self._embed(piece)
            ends = [(image, at_image[image_row : image_row + len(image)])]
            ends += [(region, at_region[region_row : region_row + len(region)])]
            image_row, region_row = image_row + len(image), region_row + len(region)
            ends = [(vector, gradient) for vector, gradient in ends if vector.requires_grad]
            if ends:
                vectors, gradients = zip(*ends, strict=True)
                torch.autograd.backward(vectors, gradients)

    # --- parts ----------------------------------------------------------------------------------------------------

    def _embed(self, piece: Piece) -> tuple[Tensor, Tensor]:
        """Unit vectors in float32 of a piece's images (b, D) and regions (m, D)."""
        with self._precision():
            if piece.regions is None:
                image, region = self.vlm.image_vectors(piece.pixels), None
            elif self.encoder == "crop":
                image, region = self.vlm.image_vectors(piece.pixels), self.vlm.image_vectors(piece.regions)
            else:
                image, region = self.vlm.image_and_region_vectors(piece.pixels, piece.owner, piece.regions)
        return self._exact(image), image.new_zeros(0, image.shape[1]) if region is None else self._exact(region)

    def _regions(self, piece: Piece) -> Tensor:
        """(m, D) unit vectors of a piece's regions alone."""
        assert piece.regions is not None
        with self._precision():
            if self.encoder == "crop":
                return self._exact(self.vlm.image_vectors(piece.regions))
            return self._exact(self.vlm.region_vectors(piece.pixels, piece.owner, piece.regions))

    def _pays(self, batch: Batch) -> bool:
        """Whether it is cheaper to look first which regions enter: a pass without gradient costs a third of one with.

        At most as many relevant regions of an image enter as the batch has classes.
        """
        assert batch.owner is not None
        assert batch.spurious is not None
        relevant = torch.bincount(batch.owner[~batch.spurious], minlength=1)
        most = int(batch.spurious.sum() + relevant.clamp(max=len(batch.label.unique())).sum())
        return 3 * most < 2 * len(batch.spurious)

    def _entering(self, region: Tensor, batch: Batch) -> Tensor:
        """(n,) bool on the CPU: the regions whose vectors the loss depends on."""
        assert batch.owner is not None
        assert batch.spurious is not None
        label = batch.label
        logits = (region @ self.objective.class_text.T)[:, label[label >= 0].unique().to(region.device)].cpu()
        owner = batch.owner
        relevant = ~batch.spurious & (label[owner + batch.first] >= 0)
        best = logits.new_full((len(batch.pixels), logits.shape[1]), -torch.inf)
        best = best.scatter_reduce(0, owner[relevant, None].expand(-1, logits.shape[1]), logits[relevant], "amax")
        return batch.spurious | (relevant & (logits >= best[owner]).any(1))

    def _beside(self, region: Tensor, batch: Batch, enters: Tensor) -> RegionVectors:
        """Vectors of the regions that enter, with their places in the whole batch."""
        assert batch.owner is not None
        assert batch.spurious is not None
        owner, spurious = batch.owner[enters] + batch.first, batch.spurious[enters]
        return RegionVectors(region, owner.to(region.device), spurious.to(region.device))

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.vlm.device.type, torch.bfloat16, enabled=self.half)

    def _exact(self, vector: Tensor) -> Tensor:
        return normalize(vector.float(), dim=-1) if self.half else vector

    def _fitting(self, work: Callable[[], T]) -> T:
        """Do a work; where memory runs out, again with pieces of half the size."""
        from accelerate.utils.memory import should_reduce_batch_size

        while True:
            try:
                return work()
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                reason = str(error).splitlines()[0]
            if self.micro == 1:
                raise RunError(
                    f"one image must fit into the memory of the device, but does not: {reason} Start again with a "
                    "smaller model or fewer regions, or with --device cpu, and another --name."
                )
            self.micro = (self.micro + 1) // 2
            for weight in self.weights.values():  # what a torn pass has left
                weight.grad = None
            gc.collect()
            if self.vlm.device.type == "cuda":
                torch.cuda.empty_cache()


def _gradient(tensor: Tensor) -> Tensor:
    """Its gradient; zeros where the loss does not depend on it."""
    if tensor.grad is None:
        tensor.grad = torch.zeros_like(tensor)
    return tensor.grad


def _pieces(batch: Batch, size: int, enters: Tensor | None = None) -> Iterator[Piece]:
    """The images of this process in pieces of `size`, with their regions, or those of them that enter the loss."""
    for start in range(0, max(1, len(batch.pixels)), size):
        pixels = batch.pixels[start : start + size]
        if batch.regions is None or batch.owner is None:
            yield Piece(pixels, torch.zeros(0, dtype=torch.long), None)
            continue
        own = (batch.owner >= start) & (batch.owner < start + size)
        own = own if enters is None else own & enters
        yield Piece(pixels, batch.owner[own] - start, batch.regions[own])


def _only(piece: Piece, enters: Tensor) -> Piece:
    assert piece.regions is not None
    return Piece(piece.pixels, piece.owner[enters], piece.regions[enters])
