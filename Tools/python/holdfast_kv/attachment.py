"""An engine's place at its agent, kept over reconnects: the memory it shares, the arena it maps, the check before use.

Attached is who was welcomed, has the arena if it wanted it, and got a block back as it was saved. Until then, and whenever
the connection is lost, everything misses.
"""

from __future__ import annotations

import os
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from .arena import Lease, MappedArena, Reservation, map_arena
from .connection import Connection, log
from .ledger import Ledger, Pending, nothing
from .namespace import canary, engine_key, namespace_digest
from .protocol import (
    Arena,
    ArenaOpened,
    Cancel,
    Chain,
    Changed,
    Farewell,
    Frame,
    Hello,
    Kind,
    Load,
    Loaded,
    Ownership,
    Places,
    Refused,
    RegionAdd,
    RegionAdded,
    RegionDrop,
    RegionDropped,
    Save,
    Saved,
    Subscribe,
    Welcome,
    encode,
)
from .regions import SharedMemory
from .settings import Settings


class _Region:
    """Memory that the agent may use, by a descriptor of this process."""

    __slots__ = ("added", "dropped", "fd", "is_dropping", "length")

    def __init__(self, fd: int, length: int) -> None:
        self.fd = fd
        self.length = length
        self.is_dropping = False
        self.added: Future[bool] = Future()
        self.dropped: Future[None] = Future()


class Attachment(Connection):
    """What a ``Client`` is before it is asked for anything."""

    def __init__(
        self,
        path: str,
        *,
        kind: str,
        store_namespace: str,
        fields: Mapping[str, str],
        block_bytes: int,
        ownership: Ownership,
        client: str,
        settings: Settings,
        on_changed: Callable[[Changed], None] | None,
        checks: bool,
        arena: str | None,
    ) -> None:
        if arena not in (None, "reading", "writing"):
            raise ValueError(f"an arena is mapped for reading or for writing, not for {arena!r}")
        if arena is not None and ownership == Ownership.ENGINE:
            raise ValueError("an engine that owns its host tier maps no arena: say Ownership.HOST")
        self._digest = namespace_digest(fields)
        tokens = int(fields["block_tokens"])
        hello = Hello(kind, store_namespace, tokens, block_bytes, self._digest, dict(fields), client, ownership)
        super().__init__(path, encode(hello), settings, takes_memory=arena is not None)
        self._arena_access = arena
        self._block_bytes = block_bytes
        self._on_changed = on_changed
        self._checks = checks
        self._ledger = Ledger(self.counters)
        self._regions: dict[int, _Region] = {}
        self._attached = threading.Event()
        #: The comparison under way, from a welcome to its end.
        self._check: _Check | None = None
        #: The agent's arena, mapped, while the agent is there.
        self.arena: MappedArena | None = None
        #: Why the agent refused this engine, the last time it did.
        self.refusal: Refused | None = None
        #: What the agent said at the last welcome.
        self.welcome: Welcome | None = None
        #: Whether the agent is there, has taken this engine on, and gave a block back as it was. Only read it.
        self.is_open = False
        #: What the last attach's check came to: True, the block came back; None, it was not kept or not loaded.
        self.checked: bool | None = None
        #: Whether the agent gave back other bytes than it was given: then it is not used any more.
        self.is_distrusted = False
        self._thread.start()

    def wait_open(self, timeout: float | None = None) -> bool:
        """Waits until the agent has taken this engine on; for starts and tests, never for a scheduler's thread."""
        return self._attached.wait(timeout)

    # ---- memory

    def add_region(self, fd: int, length: int) -> int:
        """Shares memory; the number is its name in places. Kept over reconnects; the caller may close its ``fd``."""
        with self._lock:
            number = next(n for n in range(len(self._regions) + 1) if n not in self._regions)
            region = self._regions[number] = _Region(os.dup(fd), length)
            self._put(RegionAdd(number, length), region.fd, must=True)
        return number

    def region_added(self, number: int) -> Future[bool]:
        """Ends when the agent has mapped the region for the first time."""
        return self._regions[number].added

    def drop_region(self, number: int) -> Future[None]:
        """Takes memory back; it is the engine's alone when the future has ended."""
        forgotten: list[Future[None]] = []
        with self._lock:
            region = self._regions[number]
            if not region.is_dropping:
                region.is_dropping = True
                if not self._put(RegionDrop(number), must=True) and not self._ledger.orphans and not self._ledger.jobs:
                    forgotten.append(self._forget_region(number))
        _end(forgotten)
        return region.dropped

    def _forget_region(self, number: int) -> Future[None]:
        """Under the lock; the future is to be ended outside of it."""
        region = self._regions.pop(number)
        os.close(region.fd)
        return region.dropped

    # ---- for what is asked, under the lock

    def _put(self, frame: Frame, fd: int | None = None, *, must: bool = False) -> bool:
        """Has a frame sent. ``must``: as soon as the agent has welcomed this engine, and however much waits."""
        if not (self._is_welcome if must else self.is_open and not self._leaves):
            return False
        return self._enqueue(frame, fd, must=must)

    def _pending(self, kind: Kind, limit: float, first: int = 0, count: int = 0) -> Pending:
        return self._ledger.pending(kind, time.monotonic() + limit, first, count)

    # ---- the agent comes

    def _welcomed(self, welcome: Welcome) -> None:
        self.counters.connections += 1
        with self._lock:
            self.welcome = welcome
            self._is_welcome = True
            self._ledger.is_stalled = False
            forgotten: list[Future[None]] = []
            for number, region in list(self._regions.items()):
                if region.is_dropping:
                    forgotten.append(self._forget_region(number))
                else:
                    self._put(RegionAdd(number, region.length), region.fd, must=True)
            if self._on_changed is not None:
                self._put(Subscribe(), must=True)
            if self._arena_access is not None:
                self._put(Arena(self._arena_access == "writing"), must=True)
        # Nothing touches any more what earlier connections shared: that is what a welcome says.
        _end(forgotten)
        self._end_orphans()
        if self._arena_access is None:
            self._begin(welcome)

    def _opened(self, opened: ArenaOpened, fds: list[int]) -> bool:
        file = os.dup(fds[0]) if fds else -1
        arena = self.arena = map_arena(opened, fds)
        if arena is None:
            if file >= 0:
                os.close(file)
            log.error("the agent's arena cannot be mapped; its blocks are not used")
            return False
        pages = threading.Thread(
            target=arena.bring_pages_in, args=(file, lambda: self.arena is arena), name="holdfast-pages", daemon=True
        )
        pages.start()
        if self.welcome is not None:
            self._begin(self.welcome)
        return True

    def _begin(self, welcome: Welcome) -> None:
        # The check's region has the last number there is, if that is free.
        if self._checks and welcome.regions_max - 1 not in self._regions:
            self._check = _Check(self, welcome.regions_max - 1)
            self._check.begin()
        else:
            self._admit()

    def _admit(self) -> None:
        with self._lock:
            self.is_open = self._is_welcome
        if self.is_open:
            if self._said_absent:
                log.warning("the agent at %s is there", self._path)
            self._said_absent = False
            self._attached.set()

    def _distrust(self) -> None:
        with self._lock:
            self._leaves = True
        log.error("the agent at %s gave back other bytes than it was given; it is not used", self._path)
        # Last: who sees it finds all of it done.
        self.is_distrusted = True

    def _refused(self, refused: Refused) -> None:
        self.counters.refusals += 1
        if self.refusal != refused:
            log.error("the agent refuses this engine (%s): %s", refused.code.name.lower(), refused.reason)
        self.refusal = refused

    # ---- the agent speaks

    def _received(self, frame: Frame) -> None:
        self._ledger.is_stalled = False
        if isinstance(frame, Changed):
            if self._on_changed is not None:
                self._on_changed(frame)
            return
        if isinstance(frame, Farewell):
            log.info("the agent says farewell: %s", frame.reason)
            return
        ended: list[tuple[Future[Any], Any]] = []
        with self._lock:
            if isinstance(frame, RegionAdded):
                if frame.region in self._regions:
                    ended = [(self._regions[frame.region].added, True)]
            elif isinstance(frame, RegionDropped):
                if frame.region in self._regions:
                    ended = [(self._forget_region(frame.region), None)]
            else:
                ended = self._ledger.settle(frame, self._lent)
        for future, result in ended:
            if not future.done():
                future.set_result(result)

    @abstractmethod
    def _lent(self, frame: Frame) -> Lease | Reservation | None:
        """What a frame lends, if it does."""

    # ---- the agent is late, goes, is away

    @property
    def _deadline(self) -> float:
        check = self._check
        return self._ledger.next_deadline if check is None else min(self._ledger.next_deadline, check.again_at)

    @property
    def _is_owed(self) -> bool:
        return bool(self._ledger.orphans)

    def _expire(self, now: float) -> None:
        check = self._check
        if check is not None and now >= check.again_at:
            check.go_on()
        if now < self._ledger.next_deadline:
            return
        with self._lock:
            late = self._ledger.expire(now, lambda ticket: self._put(Cancel(ticket), must=True))
        for ticket, pending in late:
            pending.future.set_result(nothing(ticket, pending))

    def _lost(self) -> None:
        """The connection ended: requests miss at once, jobs when nothing can touch their places."""
        with self._lock:
            self.is_open = False
            self.arena = None
            self._attached.clear()
            self._discard()
            asked, cancelling = self._ledger.lose()
        if self._check is not None:
            self._check.lost()
        for ticket, pending in asked:
            if not pending.future.done():
                pending.future.set_result(nothing(ticket, pending))
        for done in cancelling:
            done.set_result(None)

    def _nobody_listens(self) -> None:
        self._end_orphans()

    def _end_orphans(self) -> None:
        with self._lock:
            orphans, self._ledger.orphans = self._ledger.orphans, []
            dropping = [] if self._is_welcome else [n for n, region in self._regions.items() if region.is_dropping]
            forgotten = [self._forget_region(number) for number in dropping]
        _end(forgotten)
        for pending in orphans:
            pending.future.set_result(nothing(0, pending))

    def _ended(self) -> None:
        with self._lock:
            self.is_open = self._is_welcome = False
            self._is_closing = True
            for region in self._regions.values():
                os.close(region.fd)
            self._regions.clear()

    def _forked(self) -> None:
        super()._forked()
        self.is_open = False


def _end(futures: list[Future[None]]) -> None:
    """Ends what somebody waits for: without the lock, for what he does then may need it."""
    for future in futures:
        future.set_result(None)


class _Check:
    """A block that is saved, loaded and compared before an engine uses the agent; what engines ask goes out only then.

    The halves of an engine save the same block at the same time: to one of them the agent says that it does not keep what it
    is just taking from the other, and finds nothing yet when asked for it. So it is tried again, until the check's deadline.
    """

    def __init__(self, attachment: Attachment, region: int) -> None:
        self._at = attachment
        self._region = region
        self._size = attachment._block_bytes
        self._expected = canary(attachment._digest, self._size)
        self._chain = Chain((engine_key(attachment._digest, b"holdfast-canary-1"),), group=0xFFFF)
        self._connection = attachment.counters.connections
        self._deadline = time.monotonic() + attachment.settings.check_deadline
        self._wait = 0.005
        #: When it is tried again.
        self.again_at = float("inf")
        # One block to save, one to load into.
        self._memory = SharedMemory(2 * self._size, "holdfast-canary")

    def begin(self) -> None:
        """Shares the blocks and saves the first."""
        self._memory.view[: self._size] = self._expected
        with self._at._lock:
            self._at._put(RegionAdd(self._region, self._memory.length), self._memory.fd, must=True)
        self.go_on()

    def go_on(self) -> None:
        """Tries once."""
        self.again_at = float("inf")
        if not self._is_current:
            return self._end(None)
        return self._job(Kind.SAVE).add_done_callback(self._saved)

    def _job(self, kind: Kind) -> Future[Any]:
        at = self._at
        with at._lock:
            ticket = at._ledger.ticket()
            limit = max(0.0, self._deadline - time.monotonic())
            pending = at._ledger.jobs[ticket] = at._pending(kind, limit, 0, 1)
            places = Places.rows(self._region, [0 if kind == Kind.SAVE else 1], self._size)
            if kind == Kind.SAVE:
                at._put(Save(ticket, self._chain, 0, places), must=True)
            else:
                # The engine has all the time that there is: nothing of this block could be computed meanwhile.
                nanoseconds = max(1, int(limit * 1e9))
                wanted = Load(ticket, self._chain, 0, places, compute_wait=nanoseconds, deadline=nanoseconds)
                at._put(wanted, must=True)
        return pending.future

    def _saved(self, _: Future[Saved]) -> None:
        if not self._is_current:
            return self._end(None)
        # Kept or not: another may have saved it.
        return self._job(Kind.LOAD).add_done_callback(self._loaded)

    def _loaded(self, future: Future[Loaded]) -> None:
        now = time.monotonic()
        if future.result().end == 1:
            self._end(self._memory.view[self._size :] == self._expected)
        elif now + self._wait >= self._deadline or not self._is_current:
            self._end(None)
        else:
            self.again_at = now + self._wait
            self._wait = min(0.5, 2 * self._wait)

    def lost(self) -> None:
        """The connection has ended. A job of the check's has an end of its own."""
        if self.again_at < float("inf"):
            self._end(None)

    @property
    def _is_current(self) -> bool:
        at = self._at
        return self._connection == at.counters.connections and at._is_welcome and not at._leaves

    def _end(self, is_equal: bool | None) -> None:
        at = self._at
        if at._check is self:
            at._check = None
        self._memory.close()
        with at._lock:
            if not self._is_current:
                return
            at._put(RegionDrop(self._region), must=True)
        at.checked = is_equal
        if is_equal is False:
            at._distrust()
        else:
            if is_equal is None:
                log.warning("the agent kept no block to compare: has it room?")
            at._admit()
