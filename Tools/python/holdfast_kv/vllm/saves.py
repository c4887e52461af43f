"""Saves of a worker: blocks copied out in the stream's order, into reserved slots of the agent's arena or into rows of ours.

A block without a slot or a row is left out and counted: nothing waits. Called by the worker's thread alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..arena import Reservation
from ..naming import NamedChain
from ..protocol import Saved
from .plan import Move

if TYPE_CHECKING:
    from .worker import Worker


@dataclass(slots=True)
class _Save:
    first: int
    chain: NamedChain
    #: Rows of ours, or slots of a reservation.
    slots: list[int]
    #: Behind the copy, where that is not done at once.
    event: torch.cuda.Event | None
    #: Whose turn it is: the look-up's ticket and its asker.
    turn: tuple[int, int]
    reservation: Reservation | None = None
    job: Future[Saved] | None = None


class Saves:
    """The saves of a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._open: list[_Save] = []

    def begin(self, moves: Iterable[Move]) -> None:
        """Copies blocks out."""
        worker = self._worker
        worker.arena.restock(self._is_filling)
        for move in moves:
            if not all(move.blocks):
                worker.counts["dropped"] += len(move.blocks)
                continue
            done = 0
            for draw in worker.arena.draw(len(move.blocks)):
                self._copy_out(move, done, draw.slots, draw.rows, draw.reservation)
                done += len(draw.slots)
            rest = len(move.blocks) - done
            taken = worker.staging.acquire(rest) if rest else None
            if taken is not None:
                self._copy_out(move, done, taken, worker.rows, None)
            else:
                worker.counts["dropped"] += rest
        self.go_on()

    def go_on(self) -> None:
        """Offers what has been copied; takes back the rows of what the agent has."""
        worker = self._worker
        worker.arena.restock(self._is_filling)
        open_: list[_Save] = []
        for save in self._open:
            if save.job is None and (save.event is None or save.event.query()):
                request, asker = save.turn
                if save.reservation is not None:
                    save.job = worker.client.commit(
                        save.reservation.loan, save.slots, save.chain, request=request, asker=asker
                    )
                else:
                    places = worker.staging.places(save.slots)
                    save.job = worker.client.save(save.chain, save.first, places, request=request, asker=asker)
            if save.job is not None and save.job.done():
                self._end(save, save.job.result())
            else:
                open_.append(save)
        self._open = open_

    def _end(self, save: _Save, saved: Saved) -> None:
        kept = saved.kept.bit_count()
        self._worker.counts["saved"] += kept
        if save.reservation is None:
            self._worker.staging.release(save.slots)
        else:
            self._worker.counts["adopted"] += kept

    def _copy_out(
        self, move: Move, begin: int, slots: list[int], rows: torch.Tensor, reservation: Reservation | None
    ) -> None:
        """Copies blocks of a move from ``begin`` on into rows."""
        event = self._worker.cache.read(move.group, move.blocks[begin : begin + len(slots)], rows, slots)
        first = move.first + begin
        chain = self._worker.chain(move, self._worker.naming(move), first + len(slots))
        turn = (self._worker.ticket(move), move.asker)
        self._open.append(_Save(first, chain, slots, event, turn, reservation))

    def _is_filling(self, reservation: Reservation) -> bool:
        return any(save.reservation is reservation and save.job is None for save in self._open)
