"""Slots of the agent's arena as a worker uses them: rows to read under a lease, and a stock of reserved ones to write into.

A block's copy runs in the device's stream and cannot wait for a slot; so there are reserved ones before it is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from ..arena import MappedArena, Reservation
from ..client import Client


@dataclass(slots=True)
class _Stock:
    """Reserved slots that wait for blocks."""

    reservation: Reservation
    #: The arena's rows.
    rows: torch.Tensor
    #: Filled only until then: a copy on its way must not outlive the reservation.
    until: float
    used: int = 0

    @property
    def free(self) -> int:
        is_usable = time.monotonic() < self.until and self.reservation.in_force
        return len(self.reservation) - self.used if is_usable else 0


@dataclass(slots=True)
class Draw:
    """Reserved slots for some blocks: their numbers, and the rows that they are."""

    reservation: Reservation
    slots: list[int]
    rows: torch.Tensor


class ArenaSlots:
    """The arena of a client, as rows of ``row`` bytes."""

    def __init__(self, client: Client, row: int) -> None:
        self._client = client
        self._row = row
        self._arena: MappedArena | None = None
        self._rows: torch.Tensor | None = None
        self._stocks: list[_Stock] = []
        #: A reservation that was asked for: until when it may be filled, the rows that it is of, and the answer.
        self._wish: tuple[float, torch.Tensor, Future[Reservation | None]] | None = None
        self._wishes_at = 0.0

    def rows(self) -> torch.Tensor | None:
        """The arena's slots as rows, while the agent is there."""
        arena = self._client.arena
        if arena is not self._arena:
            self._arena, self._rows, self._stocks = arena, None, []
            if arena is not None:
                shape = arena.shape
                whole = torch.frombuffer(arena.view, dtype=torch.uint8)[: shape.slots * shape.slot_bytes]
                self._rows = whole.view(shape.slots, shape.slot_bytes)[:, : self._row]
        return self._rows

    def restock(self, is_filling: Callable[[Reservation], bool]) -> None:
        """Sees to it that there are reserved slots; gives back those too old to fill, unless somebody still does."""
        now = time.monotonic()
        if self._wish is not None and self._wish[2].done():
            until, rows_then, wish = self._wish
            self._wish = None
            reservation = wish.result()
            if reservation is not None:
                self._stocks.append(_Stock(reservation, rows_then, until))
            else:
                self._wishes_at = now + 0.1
        rows = self.rows()
        if rows is None or self._arena is None:
            return
        kept: list[_Stock] = []
        for stock in self._stocks:
            if stock.free:
                kept.append(stock)
            elif stock.used < len(stock.reservation) and not is_filling(stock.reservation):
                stock.reservation.release()
        self._stocks = kept
        wanted = max(4, min(512, self._arena.shape.slots // 32))
        if self._wish is None and now >= self._wishes_at and sum(stock.free for stock in kept) <= wanted // 2:
            until = now + self._arena.shape.lifetime_max / 2e9
            self._wish = (until, rows, self._client.reserve(wanted))

    def draw(self, count: int) -> list[Draw]:
        """Reserved slots for ``count`` blocks or fewer."""
        drawn: list[Draw] = []
        for stock in self._stocks:
            part = min(stock.free, count)
            if part:
                slots = list(stock.reservation.slots[stock.used : stock.used + part])
                stock.used += part
                count -= part
                drawn.append(Draw(stock.reservation, slots, stock.rows))
        return drawn
