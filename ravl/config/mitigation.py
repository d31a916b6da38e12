"""Every setting of a fine-tuning."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ravl.config.option import check, option


@dataclass(frozen=True)
class MitigationConfig:
    """One fine-tuning. Where the paper gives a value, it is the default."""

    method: str = option(
        "ravl",
        "ravl: region-aware loss and region exchange; families: the loss alone; exchange: the exchange alone; erase: "
        "its removal alone; paper: the loss on top clusters; standard: plain contrastive fine-tuning; the others are "
        "there to compare with",
        choices=(
            *("ravl", "families", "exchange", "erase", "paper", "standard", "upsampled", "vl-erm", "vl-gdro", "jtt"),
            *("dfr", "project", "gdro-true"),
        ),
    )
    steps: int = option(300, "optimiser steps", low=1, high=10_000_000)
    batch_size: int = option(128, "images per step", low=2, high=65_536)
    lr: float | None = option(
        None, "peak learning rate; empty: 5e-5 x sqrt(86M / parameters), at most 1e-3", low=1e-8, high=1
    )
    weight_decay: float = option(0.05, "AdamW weight decay", low=0, high=1)
    contrastive_weight: float = option(0.8, "lambda: share of the contrastive loss", low=0, high=1)
    tau: float = option(0.07, "temperature of the region losses", low=1e-4, high=10)
    reduction: str = option("mean", "how the region losses are reduced over the batch", choices=("mean", "sum"))
    exchange: float = option(
        0.5, "ravl, exchange, erase: probability that a spurious region is removed, or pasted in", low=0, high=1
    )
    families: str = option(
        "auto",
        "which clusters of a feature are treated; all: every one; top: the one of most regions, the others count as "
        "relevant, as in the paper; auto: top for paper, else all",
        choices=("auto", "all", "top"),
    )
    region_share: float | None = option(
        None,
        "share of a batch's images whose regions enter the losses; empty: a quarter for ravl, where the exchange does "
        "most of the work and a step then costs less than 1.5 times a plain one, else all, as in the paper",
        low=0.01,
        high=1,
    )
    evaluate_every: int = option(50, "steps between evaluations and checkpoints", low=1)
    patience: int | None = option(
        None, "evaluations without a better worst group after which training stops; empty: never", low=1
    )
    micro_batch: int | None = option(
        None,
        "images embedded at once, with the same result; empty: the whole batch, halved where memory runs out",
        low=1,
    )
    gradient_checkpointing: bool = option(
        False,
        "keep only what goes into each layer of the vision tower, and compute the layer again for the gradient, with "
        "the same result: less memory for about a third more time",
    )
    lora_rank: int | None = option(
        None,
        "rank of LoRA adapters in the vision tower, which need less memory (extra lora); empty: all its weights learn",
        low=1,
        high=1024,
    )
    precision: str = option(
        "auto", "auto: bf16 on CUDA, else fp32; the losses are always fp32", choices=("auto", "fp32", "bf16")
    )
    features: tuple[int, ...] = option((), "feature ids that are treated as spurious")
    seed: int = option(0, "seed of every random choice", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        check(self)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
