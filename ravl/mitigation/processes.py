"""One process or several with the same code, through Hugging Face Accelerate.

`accelerate launch --num_processes 4 -m ravl mitigate ...` starts several. Each embeds its share of every batch, all
know the vectors of the whole batch, and the first alone reads people's decisions, writes files and reports.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor

_PATIENCE = timedelta(hours=12)
"""How long the others wait while the first embeds the training images."""


@dataclass(frozen=True)
class Processes:
    """This process among `count`, by its number from 0. Without the others every method returns at once."""

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.index == 0

    def share(self, n: int) -> range:
        """Which of n things are this one's: contiguous, in the order of the processes, sizes differ by at most 1."""
        return range(self.index * n // self.count, (self.index + 1) * n // self.count)

    def rows(self, own: Tensor) -> Tensor:
        """The rows of all processes in their order; each may have another number of them. Without gradient."""
        if self.count == 1:
            return own
        from accelerate.utils import gather, gather_object

        lengths = gather_object([len(own)])
        padded = own.new_zeros(max(lengths), *own.shape[1:])
        padded[: len(own)] = own
        every = gather(padded).view(self.count, *padded.shape)  # type: ignore[union-attr]
        return torch.cat([part[:length] for part, length in zip(every, lengths, strict=True)])

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.count == 1:
            return
        from accelerate.utils import reduce

        for tensor in tensors:
            tensor.copy_(reduce(tensor, "sum"))  # type: ignore[arg-type]

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


@contextmanager
def together(device: str) -> Iterator[Processes]:
    """The processes that a launcher has started (its environment tells how many), from now to the end of the block.

    device: auto, cpu, cuda ..; with several GPUs each process gets its own as `cuda`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    from accelerate import PartialState

    cpu = device == "cpu" or not torch.cuda.is_available()
    state = PartialState(cpu=cpu, timeout=_PATIENCE)
    try:
        yield Processes(state.process_index, state.num_processes)
    finally:
        state.destroy_process_group()
