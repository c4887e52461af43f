"""The worker's half: moves blocks between the engine's cache and the agent, when the scheduler's half says so.

Blocks are written into reserved slots of the agent's arena and read there under a lease: the copy between the cache and
host memory is the only one. Where there is no slot or no lease, rows of ours stand between, which the agent copies. Called
by the worker's thread alone; nothing in it waits.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from ..namespace import EngineKeys, namespace_digest
from ..naming import NamedChain, Naming
from ..regions import StagingRegion
from .cache import Cache
from .loads import Loads
from .plan import Move, Shape, client_of
from .saves import Saves
from .slots import ArenaSlots

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_log = logging.getLogger("holdfast_kv.vllm")


class Worker:
    """One rank's blocks: a shard of each, or all of each where ranks hold the same bytes."""

    def __init__(self, shape: Shape, extra: dict[str, Any], config: VllmConfig) -> None:
        self._shape = shape
        parallel = config.parallel_config
        rank = int(parallel.rank)
        tensor_rank, stage = rank % parallel.tensor_parallel_size, rank // parallel.tensor_parallel_size
        self._shard = stage * shape.tensor + (0 if shape.is_replicated else tensor_rank)
        self._saves_here = not shape.is_replicated or tensor_rank == 0
        self.client = client_of(shape, extra, arena="writing" if extra.get("hand_over", True) else None)
        self.arena = ArenaSlots(self.client, shape.row)
        count = max(4, int(extra.get("staging_bytes", 256 << 20)) // shape.row)
        self.staging = StagingRegion(shape.row, count)
        self.staging.region = self.client.add_region(self.staging.memory.fd, self.staging.memory.length)
        self.rows = torch.frombuffer(self.staging.memory.view, dtype=torch.uint8).view(count, shape.row)
        self.cache = Cache(shape)
        self._loads = Loads(self)
        self._saves = Saves(self)
        self._keys = EngineKeys(namespace_digest(shape.fields))
        #: The keys of requests whose blocks moved here.
        self._namings: dict[str, Naming] = {}
        #: Blocks that came, of those read in place; went, of those written in place; and found no row.
        self.counts = {"loaded": 0, "lent": 0, "saved": 0, "adopted": 0, "dropped": 0}

    def register(self, caches: dict[str, torch.Tensor]) -> None:
        """The cache's tensors, and the pinning of rows where copies come from another device."""
        self.cache.register(caches)
        if self.cache.device.type == "cuda":
            self._pin()

    def _pin(self) -> None:
        memory = self.staging.memory
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory.view))
        if int(torch.cuda.cudart().cudaHostRegister(address, memory.length, 0)) != 0:
            _log.warning("rows of host memory cannot be pinned; copies are slower")

    def load(self, moves: Iterable[Move]) -> None:
        """Loads begin."""
        self._loads.begin(moves)

    def save(self, moves: Iterable[Move]) -> None:
        """Saves begin, where this rank is the one to save."""
        if self._saves_here and self.client.is_open:
            self._saves.begin(moves)

    def finished(self) -> tuple[set[str], set[str]]:
        """Requests whose loads have ended since the last call, and of those the ones that failed."""
        if self._saves_here:
            self._saves.go_on()
        return self._loads.finished()

    def forget(self, requests: Iterable[str]) -> None:
        """Requests that are finished."""
        for name in requests:
            self._namings.pop(name, None)

    def naming(self, move: Move) -> Naming:
        """The blocks of a move's request, up to the last of them."""
        naming = self._namings.get(move.request)
        if naming is None:
            naming = self._namings[move.request] = Naming(self._keys)
        naming.names += move.hashes[len(naming) :]
        return naming

    def chain(self, move: Move, naming: Naming, count: int) -> NamedChain:
        """The first ``count`` blocks of a naming, as this rank's objects."""
        return naming.chain(count, move.group, self._shard, self._shape.shards)

    def ticket(self, move: Move) -> int:
        """The scheduler's look-up of a move's blocks, as this rank's objects; 0: there was none."""
        return move.tickets[self._shard] if self._shard < len(move.tickets) else 0

    def close(self) -> None:
        """Leaves the agent; the rows stay mapped until the process ends if a job has not."""
        self.client.close()
