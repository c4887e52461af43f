"""The agent's client for engines: never blocks its engine, never fails it, never gives a place back too early.

Calls leave a frame in a bounded queue and return futures; futures always end, and never with an error: without an agent a
look-up finds nothing, a load loads nothing, a save keeps nothing. The rules are those of
``Sources/KVAgent/KVAgent.docc/EngineProtocol.md``, section "What a client owes its engine".

What is asked is here; ``attachment`` has the engine's place at the agent, ``connection`` the socket and its thread,
``ledger`` what waits for an answer.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from .aio import AsyncClient
from .arena import Lease, Reservation
from .attachment import Attachment
from .ledger import nothing, running_future
from .naming import NamedChain
from .protocol import (
    AnyChain,
    Cancel,
    Chain,
    Changed,
    Commit,
    Finished,
    Found,
    Frame,
    Kind,
    Load,
    Loaded,
    Loan,
    LookUp,
    Ownership,
    Pin,
    Ping,
    Pinned,
    Places,
    Prefetch,
    Release,
    Reserve,
    Reserved,
    Save,
    Saved,
    Stats,
    StopReason,
    Take,
    Taken,
    Touch,
    Unpin,
)
from .settings import DEFAULT_SOCKET, Counters, Settings

__all__ = ["DEFAULT_SOCKET", "AsyncClient", "Client", "Counters", "Settings"]

Keys = Sequence[bytes] | AnyChain
"""Keys of blocks from the root on, or the chain of them."""


class Client(Attachment):
    """A connection to the agent that comes back by itself.

    >>> client = Client("/run/holdfast/agent.sock", kind="vllm-tier", store_namespace="default", fields=fields,
    ...                 block_bytes=2 << 20)                                             # doctest: +SKIP
    >>> region = client.add_region(memory.fd, memory.length)                             # doctest: +SKIP
    >>> ticket, found = client.lookup(keys, prompt_tokens=len(keys) * 16)                # doctest: +SKIP

    With ``arena`` ("reading" or "writing", for a host-owned engine) the agent's node memory is mapped: ``take`` lends
    blocks to read where they lie, ``reserve`` gives slots to write into, and nothing is copied.

    ``fields`` are those of the namespace (``holdfast_kv.namespace``); block tokens are taken from them. With ``checks`` a
    block whose bytes follow from the namespace is saved, loaded and compared at each attach, before anything else.
    """

    def __init__(
        self,
        path: str = DEFAULT_SOCKET,
        *,
        kind: str,
        store_namespace: str,
        fields: Mapping[str, str],
        block_bytes: int,
        ownership: Ownership = Ownership.ENGINE,
        client: str = "holdfast-kv",
        settings: Settings | None = None,
        on_changed: Callable[[Changed], None] | None = None,
        checks: bool = True,
        arena: str | None = None,
    ) -> None:
        super().__init__(
            path, kind=kind, store_namespace=store_namespace, fields=fields, block_bytes=block_bytes,
            ownership=ownership, client=client, settings=settings or Settings(), on_changed=on_changed, checks=checks,
            arena=arena,
        )  # fmt: skip

    # ---- requests

    def lookup(
        self,
        keys: Keys,
        *,
        prompt_tokens: int,
        engine_blocks: int = 0,
        session: int = 0,
        turn: int = -1,
        deadline: float | None = None,
    ) -> tuple[int, Future[Found]]:
        """Looks a prompt's chain up. The ticket names the request until ``finished``.

        Late or without an agent: nothing found.
        """
        self.counters.lookups += 1
        limit = self.settings.lookup_deadline if deadline is None else deadline
        with self._lock:
            ticket = self._ledger.ticket()
            pending = self._pending(Kind.LOOKUP, limit)
            frame = LookUp(ticket, _chain(keys), prompt_tokens, engine_blocks, session, turn)
            welcome = self.welcome
            room = welcome is None or len(self._ledger.requests) < welcome.requests_max
            if not self._ledger.is_stalled and room and self._put(frame):
                self._ledger.requests[ticket] = pending
                return ticket, pending.future
        self._miss()
        pending.future.set_result(Found(ticket))
        return ticket, pending.future

    def finished(
        self,
        request: int,
        *,
        reason: StopReason = StopReason.UNKNOWN,
        cached_tokens: int = -1,
        time_to_first_token: float = 0.0,
        resumes_after: float = 0.0,
        answer_tokens: int = 0,
    ) -> None:
        """A request's end; ``resumes_after`` in seconds, 0: nobody knows when its conversation goes on."""
        with self._lock:
            pending = self._ledger.requests.pop(request, None)
            if pending is None or pending.is_dead:
                return
            first, resumes = _nanoseconds(time_to_first_token), _nanoseconds(resumes_after)
            self._put(Finished(request, reason, cached_tokens, first, resumes, answer_tokens), must=True)
        if not pending.future.done():
            pending.future.set_result(Found(request))

    def cancel(self, request: int) -> Future[None]:
        """Gives a request up, its jobs included; ends when nothing touches their places."""
        done: Future[None] = running_future()
        with self._lock:
            pending = self._ledger.requests.get(request)
            if pending is not None and not pending.is_dead and self._put(Cancel(request), must=True):
                pending.is_dead = True
                self._ledger.cancelling[request] = done
                return done
        done.set_result(None)
        return done

    # ---- blocks through the engine's regions

    def load(
        self,
        keys: Keys | None,
        first: int,
        places: Places,
        *,
        request: int = 0,
        asker: int = 0,
        compute_wait: float = 0.0,
        deadline: float | None = None,
    ) -> Future[Loaded]:
        """Brings blocks from ``first`` on to their places. ``keys`` None: the chain of the request's look-up.

        ``asker`` is the agent's number of the client that looked ``request`` up (``number``), where that is another process.
        When the future ends the places are the engine's again, always.
        """
        self.counters.loads += 1
        limit = self.settings.load_deadline if deadline is None else deadline

        def frame(ticket: int) -> Frame | None:
            known, number = self._turn(request, asker)
            if keys is None and (not known or number):
                return None
            chain = Chain() if keys is None else _chain(keys)
            wait, late = _nanoseconds(compute_wait), max(1, _nanoseconds(limit))
            return Load(ticket, chain, first, places, known, wait, late, number)

        return self._job(Kind.LOAD, limit, frame, first, places.blocks)

    def save(
        self,
        keys: Keys,
        first: int,
        places: Places,
        *,
        request: int = 0,
        asker: int = 0,
        eviction_class: int = 0,
        deadline: float | None = None,
    ) -> Future[Saved]:
        """Offers new blocks; ``keys`` ends with the last of them. The places stay unchanged until the future ends.

        ``asker`` is the agent's number of the client that looked ``request`` up (``number``), where that is another process.
        """
        self.counters.saves += 1

        def frame(ticket: int) -> Frame:
            known, number = self._turn(request, asker)
            return Save(ticket, _chain(keys), first, places, known, eviction_class, number)

        limit = self.settings.save_deadline if deadline is None else deadline
        return self._job(Kind.SAVE, limit, frame, first, places.blocks)

    # ---- blocks in the agent's arena

    def take(
        self,
        keys: Keys | None,
        first: int,
        blocks: int,
        *,
        request: int = 0,
        asker: int = 0,
        verify: bool = True,
        compute_wait: float = 0.0,
        lifetime: float = 0.0,
        deadline: float | None = None,
    ) -> Future[Lease | None]:
        """Borrows the leading run of ``blocks`` blocks from ``first`` on, to be read where they lie; None: nothing there.

        ``keys`` None: the chain of the request's look-up; then the lease ends with the request. ``asker`` as in ``load``.
        With ``verify`` the agent compares checksums before it hands blocks over. ``lifetime`` in seconds, 0: as long as the
        agent lends.
        """
        self.counters.takes += 1
        limit = self.settings.load_deadline if deadline is None else deadline

        def frame(ticket: int) -> Frame | None:
            known, number = self._turn(request, asker)
            if self.arena is None or blocks <= 0 or (keys is None and (not known or number)):
                return None
            return Take(
                ticket, Chain() if keys is None else _chain(keys), first, blocks, known, verify,
                _nanoseconds(compute_wait), max(1, _nanoseconds(limit)), _nanoseconds(lifetime), number,
            )  # fmt: skip

        return self._job(Kind.TAKE, limit, frame, first, blocks)

    def reserve(self, slots: int, *, lifetime: float = 0.0, deadline: float | None = None) -> Future[Reservation | None]:
        """Empty slots to write into, as many as ``slots`` or fewer; None when there are none."""

        def frame(ticket: int) -> Frame | None:
            if self.arena is None or not self.arena.shape.writable or slots <= 0:
                return None
            return Reserve(ticket, slots, _nanoseconds(lifetime))

        return self._job(Kind.RESERVE, self.settings.load_deadline if deadline is None else deadline, frame, 0, slots)

    def commit(
        self,
        loan: Loan,
        slots: Sequence[int],
        keys: Keys,
        *,
        request: int = 0,
        asker: int = 0,
        eviction_class: int = 0,
        deadline: float | None = None,
    ) -> Future[Saved]:
        """Makes reserved slots the last blocks of a chain. ``Reservation.commit`` is the way to it."""
        self.counters.commits += 1

        def frame(ticket: int) -> Frame | None:
            chain = _chain(keys)
            # A naming's keys are made on the client's thread.
            first = (chain.count if isinstance(chain, NamedChain) else len(chain.keys)) - len(slots)
            if not slots or first < 0:
                return None
            known, number = self._turn(request, asker)
            return Commit(ticket, chain, first, loan, tuple(slots), known, eviction_class, number)

        return self._job(Kind.COMMIT, self.settings.save_deadline if deadline is None else deadline, frame, 0, len(slots))

    def release(self, loan: Loan) -> Future[bool]:
        """Gives a loan back; whether it was in force until then. ``Lease.release`` is the way to it."""

        def frame(ticket: int) -> Frame | None:
            return Release(ticket, loan) if self.arena is not None else None

        return self._ask(Kind.RELEASE, frame, must=True)[1]

    # ---- hints, pins, questions

    def prefetch(self, keys: Keys) -> None:
        """A hint: these blocks will be asked for."""
        with self._lock:
            self._put(Prefetch(_chain(keys)))

    def touch(self, keys: Keys) -> None:
        """A hint: these blocks were used without a request."""
        with self._lock:
            self._put(Touch(_chain(keys)))

    def pin(self, keys: Keys, lifetime: float) -> tuple[int, Future[Pinned]]:
        """Keeps what is on this node of a chain for ``lifetime`` seconds."""
        return self._ask(Kind.PIN, lambda ticket: Pin(ticket, _chain(keys), max(1, _nanoseconds(lifetime))))

    def unpin(self, pin: int) -> None:
        """Takes a pin back before its time."""
        with self._lock:
            self._put(Unpin(pin))

    def statistics(self) -> Future[Mapping[str, int]]:
        """The agent's numbers, empty without one."""
        return self._ask(Kind.STATS, Stats)[1]

    def ping(self) -> Future[bool]:
        """Whether the agent answers."""
        return self._ask(Kind.PING, Ping)[1]

    # ---- the end

    @property
    def number(self) -> int:
        """The agent's number for this connection; 0 without one."""
        return self.welcome.engine if self.welcome is not None else 0

    @property
    def open_jobs(self) -> int:
        """Jobs whose places are not the engine's yet."""
        return len(self._ledger.jobs) + len(self._ledger.orphans)

    def drain(self, timeout: float | None = None) -> bool:
        """Waits until no job is open; for resets, never for a scheduler's thread in the middle of its work."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                futures = self._ledger.open_futures()
            if not futures:
                return True
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            with contextlib.suppress(FutureTimeoutError):
                futures[0].exception(left)

    def close(self, timeout: float = 5.0) -> bool:
        """Says goodbye and waits for open jobs. False: some did not end, and their places must not be used."""
        if self._is_forked:
            return True
        self._say_goodbye()
        is_quiet = self.drain(timeout)
        self._end(timeout)
        return is_quiet

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- inside

    def _turn(self, request: int, asker: int) -> tuple[int, int]:
        """The request and the asker that a job names: no asker where the request is ours and open."""
        if not request or (not asker and self._ledger.knows(request)):
            return request, 0
        number = asker or self.number
        return (request, number) if 0 < number <= 0xFFFF else (0, 0)

    def _job(self, kind: Kind, limit: float, make: Callable[[int], Frame | None], first: int, count: int) -> Future[Any]:
        """Has a job sent that ``make`` makes of a ticket, under the lock; where it can't be, it has come to nothing."""
        with self._lock:
            ticket = self._ledger.ticket()
            pending = self._pending(kind, limit, first, count)
            frame = make(ticket)
            room = self.welcome is None or len(self._ledger.jobs) < self.welcome.jobs_max
            if frame is not None and room and self._put(frame):
                self._ledger.jobs[ticket] = pending
                return pending.future
        self._miss()
        pending.future.set_result(nothing(ticket, pending))
        return pending.future

    def _ask(self, kind: Kind, make: Callable[[int], Frame | None], *, must: bool = False) -> tuple[int, Future[Any]]:
        with self._lock:
            ticket = self._ledger.ticket()
            pending = self._pending(kind, self.settings.load_deadline)
            frame = make(ticket)
            if frame is not None and self._put(frame, must=must):
                self._ledger.questions[ticket] = pending
                return ticket, pending.future
        pending.future.set_result(nothing(ticket, pending))
        return ticket, pending.future

    def _lent(self, frame: Frame) -> Lease | Reservation | None:
        if self.arena is not None:
            if isinstance(frame, Taken) and frame.blocks:
                return Lease(self, self.arena, frame, self._block_bytes)
            if isinstance(frame, Reserved) and frame.slots:
                return Reservation(self, self.arena, frame, self._block_bytes)
        return None

    def _miss(self) -> None:
        if not self.is_open:
            self.counters.misses_without_agent += 1


def _chain(keys: Keys) -> AnyChain:
    return keys if isinstance(keys, (Chain, NamedChain)) else Chain(tuple(keys))  # type: ignore[arg-type]


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
