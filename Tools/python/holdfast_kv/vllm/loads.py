"""Loads of a worker: blocks read in place in the agent's arena, or brought by the agent into rows of ours.

A load ends as a completion or as a failure, after the agent has let go of its rows. Called by the worker's thread alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from ..arena import Lease
from ..naming import Naming
from ..protocol import Loaded
from .plan import Move

if TYPE_CHECKING:
    from .worker import Worker


@dataclass(slots=True)
class _Load:
    move: Move
    naming: Naming
    #: Blocks in place.
    done: int = 0
    #: Blocks to be read in place, with the arena's rows; or copied by the agent into rows of ours.
    lease: Future[Lease | None] | None = None
    arena: torch.Tensor | None = None
    job: Future[Loaded] | None = None
    slots: list[int] = field(default_factory=list)
    #: Whether reading in place came to its end: the rest is copied.
    copies: bool = False

    @property
    def is_idle(self) -> bool:
        return self.lease is None and self.job is None

    @property
    def is_whole(self) -> bool:
        return self.done == len(self.move.blocks)


class Loads:
    """The loads of a worker, by their requests."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._open: dict[str, list[_Load]] = {}
        self._failed: set[str] = set()

    def begin(self, moves: Iterable[Move]) -> None:
        """Loads begin; null blocks, which sliding windows leave behind, get none."""
        for move in moves:
            self._open.setdefault(move.request, []).append(_Load(move, self._worker.naming(move)))
        self._go_on()

    def finished(self) -> tuple[set[str], set[str]]:
        """Requests whose loads have ended since the last call, and of those the ones that failed."""
        received: set[str] = set()
        for name, loads in self._open.items():
            for load in loads:
                if load.lease is not None and load.lease.done():
                    self._read(load)
                if load.job is not None and load.job.done() and not self._end(load):
                    self._failed.add(name)
            is_failed = name in self._failed
            # A failed one waits for its open jobs, too: until they have ended the agent may write to their rows.
            if all(load.is_idle and (is_failed or load.is_whole) for load in loads):
                received.add(name)
        for name in received:
            del self._open[name]
        failed = received & self._failed
        self._failed -= received
        self._go_on()
        return received, failed

    def _go_on(self) -> None:
        for name, loads in self._open.items():
            for load in loads:
                if name not in self._failed and load.is_idle and not load.is_whole:
                    self._ask(load)

    def _ask(self, load: _Load) -> None:
        worker, move = self._worker, load.move
        first, count = move.first + load.done, len(move.blocks) - load.done
        rows = None if load.copies else worker.arena.rows()
        if rows is not None:
            load.arena = rows
            load.lease = worker.client.take(
                worker.chain(move, load.naming, first + count), first, count, request=worker.ticket(move), asker=move.asker
            )
            return
        count = min(count, worker.staging.free)
        slots = worker.staging.acquire(count) if count else None
        if slots is not None:
            load.slots = slots
            load.job = worker.client.load(
                worker.chain(move, load.naming, first + count), first, worker.staging.places(slots),
                request=worker.ticket(move), asker=move.asker,
            )  # fmt: skip

    def _read(self, load: _Load) -> None:
        """Takes in what may be read in place. What of it is missing is copied."""
        assert load.lease is not None and load.arena is not None
        lease, rows = load.lease.result(), load.arena
        load.lease, load.arena, load.copies = None, None, True
        if lease is None:
            return
        if lease.taken.first != load.move.first + load.done:
            lease.release()
            return
        blocks = load.move.blocks[load.done : load.done + len(lease)]
        wanted = [(block, slot) for block, (slot, _) in zip(blocks, lease.taken.blocks, strict=True) if block > 0]
        chosen = rows.index_select(0, torch.tensor([slot for _, slot in wanted])) if wanted else None
        # After the last byte: what was read is the blocks' only if they were ours until here.
        if not lease.settle():
            return
        if chosen is not None:
            self._worker.cache.write(load.move.group, [block for block, _ in wanted], chosen)
        load.done += len(blocks)
        self._worker.counts["loaded"] += len(blocks)
        self._worker.counts["lent"] += len(blocks)

    def _end(self, load: _Load) -> bool:
        """Takes a piece of a load in; False: it has failed."""
        assert load.job is not None
        worker, result, count = self._worker, load.job.result(), len(load.slots)
        is_whole = result.end - result.first == count
        if is_whole:
            blocks = load.move.blocks[load.done : load.done + count]
            wanted = [(block, slot) for block, slot in zip(blocks, load.slots, strict=True) if block > 0]
            if wanted:
                rows = worker.rows.index_select(0, torch.tensor([slot for _, slot in wanted]))
                worker.cache.write(load.move.group, [block for block, _ in wanted], rows)
            load.done += count
            worker.counts["loaded"] += count
        worker.staging.release(load.slots)
        load.job, load.slots = None, []
        return is_whole
