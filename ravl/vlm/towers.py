"""Vision towers as the steps from pixels to a vector, so that a region can enter where nothing else is mixed in yet.

`TokenTower`: a vision transformer. The region encoder `tokens` runs its unchanged layers on the prefix (class and
register tokens, if it has any) and the region's own patch tokens, with their position embeddings. Nothing else of the
image can leak in, and since attention is quadratic in the number of tokens, the regions of a partition together cost
about one plain forward pass. A transformer without class token pools the region's tokens by its own attention.

`WholeTower`: any other tower. It sees whole pictures only, so regions are cut out (`crop`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from ravl.vlm.geometry import Geometry

MIDDLE_DEPTH = 2 / 3
"""Depth, as a share of the layers, whose patch tokens describe a region for clustering."""


@dataclass(frozen=True)
class Cost:
    """Floats that a backward pass keeps: of an image, and of one token of a region; prefix: tokens beside its own."""

    image: float
    token: float
    prefix: int


class Tower(Protocol):
    """encoder: how it embeds regions within their image, "" if it cannot. width: M, of the middle features."""

    encoder: str
    width: int

    def begin(self, pixels: Tensor) -> Any:
        """What image and regions have in common, from (B, 3, H, W) pixels."""
        ...

    def whole(self, begun: Any) -> tuple[Tensor, Tensor]:
        """(B, D) vectors of the images, not normalised, and (B, M) middle features."""
        ...

    def regions(self, begun: Any, owner: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """The same of regions at `places` (n, ...) of image `owner` (n,)."""
        ...

    def places(
        self,
        geometry: Geometry,
        size: NDArray[np.integer[Any]],
        box: NDArray[np.integer[Any]],
        masks: Sequence[NDArray[np.bool_] | None] | None,
    ) -> Tensor:
        """Where boxes (n, 4) of images of `size` (n, 2) lie, as `regions` wants it."""
        ...

    def cost(self, deep: bool) -> Cost:
        """deep: whether the gradient goes through the tower, not just through its end."""
        ...


class TokenTower:
    """A vision transformer.

    embed: (B, 3, H, W) pixels -> (B, prefix + N, d) tokens with positions, before the first layer. layers: all of them,
    tokens -> tokens. end: tokens before the last layer -> (n, D) vectors. mlp: width of the layers' MLP. alone: whether
    the prefix without any patch gives an answer, as a class token does. short: the end computes one token alone.
    recompute: whether a pass with gradient keeps only what goes into each layer but the last, and computes the layer
    again when the gradient comes back.
    """

    encoder = "tokens"
    recompute = False

    def __init__(
        self,
        embed: Callable[[Tensor], Tensor],
        layers: Sequence[Callable[[Tensor], Tensor]],
        end: Callable[[Tensor], Tensor],
        prefix: int,
        n_patches: int,
        width: int,
        mlp: int,
        alone: bool,
        short: bool = False,
    ) -> None:
        self.alone, self.short = alone, short
        self.begin, self.layers, self.end = embed, list(layers), end
        self.prefix, self.n_patches, self.width, self.mlp = prefix, n_patches, width, mlp
        # never the last layer: some towers compute no patch tokens there
        self.middle = min(round(MIDDLE_DEPTH * len(self.layers)), len(self.layers) - 1)

    def whole(self, begun: Tensor) -> tuple[Tensor, Tensor]:
        tokens, own = begun, self.prefix
        for layer in self.layers[: self.middle]:
            tokens = self._through(layer, tokens)
        # what is small fills few tokens: it would drown in their mean
        middle = tokens[:, own:].amax(1) if tokens.shape[1] > own else tokens[:, 0]
        for layer in self.layers[self.middle : -1]:
            tokens = self._through(layer, tokens)
        return self.end(tokens), middle

    def _through(self, layer: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
        if not (self.recompute and torch.is_grad_enabled()):
            return layer(tokens)
        again: Tensor = checkpoint(layer, tokens, use_reentrant=False)
        return again

    def regions(self, begun: Tensor, owner: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """places: (n, N) bool, the patches of each region. Regions with equally many run together, unpadded.

        Raises ValueError for a region that holds no patch, of a tower that has nothing else to look at.
        """
        owner, places = owner.to(begun.device), places.to(begun.device)
        counts = places.sum(1)
        order, vectors, middle = [], [], []
        for count in counts.unique().tolist():
            if count == 0 and not self.alone:
                raise ValueError("every region must hold at least one patch, as this model pools those alone.")
            rows = torch.nonzero(counts == count)[:, 0]
            columns = torch.nonzero(places[rows])[:, 1].reshape(len(rows), count) + self.prefix
            first = torch.arange(self.prefix, device=begun.device).expand(len(rows), -1)
            out = self.whole(begun[owner[rows, None], torch.cat([first, columns], 1)])
            order.append(rows)
            vectors.append(out[0])
            middle.append(out[1])
        if not order:
            return self._nothing(begun)
        back = torch.argsort(torch.cat(order))
        return torch.cat(vectors)[back], torch.cat(middle)[back]

    def _nothing(self, begun: Tensor) -> tuple[Tensor, Tensor]:
        vector, middle = self.whole(begun[:1]) if len(begun) else (begun[:, 0], begun[:, 0])
        return vector[:0], middle[:0]

    def places(
        self,
        geometry: Geometry,
        size: NDArray[np.integer[Any]],
        box: NDArray[np.integer[Any]],
        masks: Sequence[NDArray[np.bool_] | None] | None,
    ) -> Tensor:
        return torch.from_numpy(geometry.patches(size, box, masks))

    def cost(self, deep: bool) -> Cost:
        """Per token 8 d + 3 m floats in each layer of width d and MLP width m; half a layer at a short end. A frozen
        tower keeps one layer at a time; so does one that is computed again, and d floats for each of the others.
        """
        each = 8 * self.width + 3 * self.mlp
        kept = each * (len(self.layers) - (0.5 if self.short else 0.0)) if deep else each
        if deep and self.recompute:
            kept = each + (len(self.layers) - 1) * self.width
        return Cost((self.prefix + self.n_patches) * kept, kept, self.prefix)


class WholeTower:
    """A tower that is not looked into: whole pictures in, vectors out; the vector is also the middle feature."""

    encoder = ""

    def __init__(self, forward: Callable[[Tensor], Tensor], module: nn.Module, pixels: Tensor) -> None:
        """pixels: (1, 3, H, W) an example, whose cost is measured."""
        self.forward = forward
        vector, self._kept = kept_floats(module, lambda: forward(pixels))
        self.width = vector.shape[1]

    def begin(self, pixels: Tensor) -> Tensor:
        return pixels

    def whole(self, begun: Tensor) -> tuple[Tensor, Tensor]:
        vector = self.forward(begun)
        return vector, vector

    def regions(self, begun: Tensor, owner: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        raise ValueError("encoder must be crop for this model.")

    def places(
        self,
        geometry: Geometry,
        size: NDArray[np.integer[Any]],
        box: NDArray[np.integer[Any]],
        masks: Sequence[NDArray[np.bool_] | None] | None,
    ) -> Tensor:
        raise ValueError("encoder must be crop for this model.")

    def cost(self, deep: bool) -> Cost:
        return Cost(self._kept if deep else self._kept / 10, 0.0, 0)


def kept_floats(module: nn.Module, run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """Run once, without gradient, and count the floats that all innermost modules of `module` give out."""
    counted = 0

    def count(_: nn.Module, __: Any, out: Any) -> None:
        nonlocal counted
        counted += out.numel() if isinstance(out, Tensor) else 0

    hooks = [part.register_forward_hook(count) for part in module.modules() if not list(part.children())]
    try:
        with torch.no_grad():
            vector = run()
    finally:
        for hook in hooks:
            hook.remove()
    return vector, float(counted)


def class_token(layer: Any, tokens: Tensor) -> Tensor:
    """(n, d) class token after the last layer of a transformers CLIP; its other tokens are never used, so they are not
    computed.
    """
    attention = layer.self_attn
    normed = layer.layer_norm1(tokens)

    def heads(projected: Tensor) -> Tensor:
        split: Tensor = projected.unflatten(2, (attention.num_heads, -1))
        return split.transpose(1, 2)

    mixed = scaled_dot_product_attention(
        heads(attention.q_proj(normed[:, :1])), heads(attention.k_proj(normed)), heads(attention.v_proj(normed)),
        scale=attention.scale,
    )  # fmt: skip
    token = tokens[:, 0] + attention.out_proj(mixed.transpose(1, 2).flatten(2))[:, 0]
    return token + layer.mlp(layer.layer_norm2(token))  # type: ignore[no-any-return]


def same(tower: Tower, forward: Callable[[Tensor], Tensor], pixels: Tensor) -> str:
    """Why a tower taken apart must not be trusted: it answers otherwise than the model as a whole; "" if it agrees.

    pixels: (B, 3, H, W) examples.
    """
    with torch.no_grad():
        try:
            taken_apart = tower.whole(tower.begin(pixels))[0]
        except (AttributeError, TypeError, RuntimeError, ValueError, IndexError) as error:
            return f"its layers could not be run one by one ({str(error).splitlines()[0][:120]})"
        expected = forward(pixels)
    if taken_apart.shape != expected.shape:
        return f"its layers, run one by one, give {tuple(taken_apart.shape)} instead of {tuple(expected.shape)}"
    off = float((taken_apart - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    return "" if off < 1e-3 else f"its layers, run one by one, answer otherwise than the whole (by {off:.1e})"
