"""The engine's cache as rows of bytes, one a block: what a block is in the agent's memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .plan import Shape


class Layer:
    """A layer's tensor as rows of bytes, one a block."""

    def __init__(self, tensor: torch.Tensor, blocks: int) -> None:
        self.tensor = tensor
        self.axis = next(axis for axis in range(tensor.dim()) if tensor.shape[axis] == blocks)
        self.size = tensor.numel() // blocks * tensor.element_size()

    def read(self, blocks: torch.Tensor) -> torch.Tensor:
        """Blocks as bytes: one row each."""
        chosen = self.tensor.index_select(self.axis, blocks).movedim(self.axis, 0)
        return chosen.contiguous().view(torch.uint8).reshape(len(blocks), self.size)

    def write(self, blocks: torch.Tensor, rows: torch.Tensor) -> None:
        """Bytes into blocks."""
        shape = [size for axis, size in enumerate(self.tensor.shape) if axis != self.axis]
        chosen = rows.contiguous().view(self.tensor.dtype).reshape(len(blocks), *shape).movedim(0, self.axis)
        self.tensor.index_copy_(self.axis, blocks, chosen)


class Cache:
    """The layers of a worker by their groups. A row is the bytes of a group's layers, side by side."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._groups: list[list[Layer]] = []
        self.device = torch.device("cpu")

    def register(self, caches: dict[str, torch.Tensor]) -> None:
        """The cache's tensors by the names of layers."""
        self._groups = [
            [Layer(caches[name], self._shape.count) for name in names if name in caches] for names in self._shape.layers
        ]
        self.device = next(iter(caches.values())).device

    def write(self, group: int, blocks: Sequence[int], rows: torch.Tensor) -> None:
        """Rows into blocks."""
        where = torch.tensor(list(blocks), device=self.device)
        at = 0
        for layer in self._groups[group]:
            layer.write(where, rows[:, at : at + layer.size].to(self.device))
            at += layer.size

    def read(self, group: int, blocks: Sequence[int], rows: torch.Tensor, slots: Sequence[int]) -> torch.cuda.Event | None:
        """Blocks into rows, those of ``slots``, in the stream's order; done when the event has come, at once without one."""
        parts = [layer.read(torch.tensor(list(blocks), device=self.device)) for layer in self._groups[group]]
        for row, slot in enumerate(slots):
            at = 0
            for part in parts:
                rows[slot, at : at + part.shape[1]].copy_(part[row], non_blocking=True)
                at += part.shape[1]
            rows[slot, at:].zero_()
        if self.device.type != "cuda":
            return None
        event = torch.cuda.Event()
        event.record()
        return event
