"""Look-ups that wait for the loads of what they found.

Some engines ask and load by calls that know nothing of each other. A look-up of theirs ends when what it found was loaded,
not when it was answered: the agent counts what a request's loads bring until the request's end, and nothing behind it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final

from .client import Client
from .protocol import Chain

HELD_MAX: Final = 64
"""Look-ups that wait at once; beyond it the oldest is over."""

HELD_SECONDS: Final = 10.0
"""How long one waits for a load; it is over at the next call behind that. What the agent staged for it waits as long."""


@dataclass(slots=True)
class _LookUp:
    ticket: int
    chain: Chain
    hits: int
    since: float


class HeldLookUps:
    """The look-ups of a client that found something. Any thread may call it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._waiting: list[_LookUp] = []
        self._loading: dict[int, _LookUp] = {}

    def hold(self, ticket: int, chain: Chain, hits: int) -> None:
        """A look-up was answered: it waits for its load, if it found anything."""
        over: list[int] = []
        now = time.monotonic()
        with self._lock:
            if hits:
                self._waiting.append(_LookUp(ticket, chain, hits, now))
            else:
                over.append(ticket)
            while self._waiting and (len(self._waiting) > HELD_MAX or now - self._waiting[0].since > HELD_SECONDS):
                over.append(self._waiting.pop(0).ticket)
        for each in over:
            self._client.finished(each)

    def claim(self, chain: Chain) -> int:
        """The look-up that a load of a chain's last blocks belongs to, the oldest if there are several; 0: none."""
        count = len(chain.keys)
        with self._lock:
            for place, held in enumerate(self._waiting):
                asked = held.chain
                is_same = (asked.group, asked.shard) == (chain.group, chain.shard)
                if is_same and asked.keys[count - 1 : count] == chain.keys[-1:]:
                    self._loading[held.ticket] = self._waiting.pop(place)
                    return held.ticket
        return 0

    def loaded(self, ticket: int, end: int, *, is_whole: bool) -> None:
        """A load of a look-up's has ended, at block ``end``. The look-up is over if that is all of it, or all that comes."""
        with self._lock:
            held = self._loading.pop(ticket, None)
            if held is None:
                return
            if is_whole and end < held.hits:
                self._waiting.insert(0, held)
                return
        self._client.finished(ticket)

    def close(self) -> None:
        """Nothing is loaded any more."""
        with self._lock:
            over, self._waiting = self._waiting, []
        for held in over:
            self._client.finished(held.ticket)
