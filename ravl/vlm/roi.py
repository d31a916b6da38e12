"""`roi`: regions of a convolutional CLIP (open_clip's ModifiedResNet), cut out of its last map.

The network sees the image once. Of every region a map of the attention pool's size is sampled from the last map
(RoIAlign, He et al. 2017), and goes through the model's own attention pool. Other than with `tokens` the rest of the
image has had its say: a cell of the last map has seen nearly all of it.

Deviation: one sample in the middle of each bin, where RoIAlign takes the mean of several. A region is never larger
than the image, so a bin is never larger than a cell; and a region that is the whole image gives the image's own map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, multi_head_attention_forward

from ravl.vlm.geometry import Geometry
from ravl.vlm.towers import Cost, kept_floats


class MapTower:
    """A ModifiedResNet. Its middle features are those of the stage before the last, over the region."""

    encoder = "roi"

    def __init__(self, visual: Any, example: Tensor) -> None:
        """example: (1, 3, H, W) pixels, whose cost is measured."""
        self.visual, self.input_size = visual, int(example.shape[-1])
        self.side = round((len(visual.attnpool.positional_embedding) - 1) ** 0.5)
        vector, self._kept = kept_floats(visual, lambda: self.whole(self.begin(example))[0])
        self.width = int(visual.layer4[0].conv1.in_channels)
        self._channels = int(visual.attnpool.k_proj.in_features)
        self.dim = vector.shape[1]

    def begin(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The maps of the last two stages, (B, C, h, w)."""
        visual = self.visual
        before = visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels))))
        return visual.layer4(before), before

    def whole(self, begun: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        last, before = begun
        return pool(self.visual.attnpool, last), before.amax((2, 3))

    def regions(self, begun: tuple[Tensor, Tensor], owner: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """places: (n, 4 + S * S), the box in shares of the input and which of its S x S bins belong to the region."""
        last, before = begun
        if not len(owner):
            return last.new_zeros(0, self.dim), last.new_zeros(0, self.width)
        owner, places = owner.to(last.device), places.to(last.device)  # float32, also where the maps are not
        box, inside = places[:, :4], places[:, 4:].unflatten(1, (self.side, self.side))[:, None]
        cut = align(last, owner, box, self.side)
        middle = align(before, owner, box, self.side)
        count = inside.sum((2, 3))
        # what does not belong to the region shows the mean of what does, as a crop does
        mean = (cut * inside).sum((2, 3)) / count
        cut = cut * inside + mean[:, :, None, None] * (1 - inside)
        return pool(self.visual.attnpool, cut), middle.masked_fill(inside == 0, -torch.inf).amax((2, 3))

    def places(
        self,
        geometry: Geometry,
        size: NDArray[np.integer[Any]],
        box: NDArray[np.integer[Any]],
        masks: Sequence[NDArray[np.bool_] | None] | None,
    ) -> Tensor:
        share = geometry.to_input(size, box) / geometry.input_size
        inside = np.ones((len(share), self.side, self.side), np.float32)
        for row, mask in enumerate(masks or ()):
            if mask is not None:
                inside[row] = _bins(mask, self.side)
        return torch.from_numpy(np.hstack([share, inside.reshape(len(share), self.side**2)]).astype(np.float32))

    def cost(self, deep: bool) -> Cost:
        token = 4.0 * self._channels
        return Cost(self._kept if deep else token * (self.side**2 + 1), token, self.side**2 + 1)


def align(maps: Tensor, owner: Tensor, box: Tensor, side: int) -> Tensor:
    """(n, C, side, side) what maps (B, C, h, w) show in boxes (n, 4) of image `owner`, in shares of the input.

    Between the middles of cells it is interpolated, beyond the outermost it stays the same.
    """
    step = (torch.arange(side, device=maps.device, dtype=box.dtype) + 0.5) / side
    x = box[:, 0:1] + (box[:, 2:3] - box[:, 0:1]) * step
    y = box[:, 1:2] + (box[:, 3:4] - box[:, 1:2]) * step
    n = len(box)
    grid = torch.stack([x[:, None, :].expand(n, side, side), y[:, :, None].expand(n, side, side)], -1)
    return grid_sample(maps[owner], 2 * grid - 1, padding_mode="border", align_corners=False)


def pool(attention: Any, maps: Tensor) -> Tensor:
    """(n, D) open_clip's AttentionPool2d; of its answers only the first is used, so only that is computed."""
    tokens = maps.flatten(2).permute(2, 0, 1)
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens]) + attention.positional_embedding[:, None, :]
    q, k, v, out = attention.q_proj, attention.k_proj, attention.v_proj, attention.c_proj
    answer, _ = multi_head_attention_forward(
        query=tokens[:1], key=tokens, value=tokens,
        embed_dim_to_check=tokens.shape[-1], num_heads=attention.num_heads,
        q_proj_weight=q.weight, k_proj_weight=k.weight, v_proj_weight=v.weight,
        in_proj_weight=None, in_proj_bias=torch.cat([q.bias, k.bias, v.bias]),
        bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0,
        out_proj_weight=out.weight, out_proj_bias=out.bias,
        use_separate_proj_weight=True, training=False, need_weights=False,
    )  # fmt: skip
    return answer[0]


def _bins(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """(side, side) bool: the bins whose middle lies in the mask; all of them where none does."""
    height, width = mask.shape
    middle: Callable[[int], NDArray[np.int64]] = lambda length: (  # noqa: E731
        (np.arange(side) + 0.5) * length / side
    ).astype(int)
    inside = mask[np.ix_(middle(height), middle(width))]
    return inside if inside.any() else np.ones_like(inside)
