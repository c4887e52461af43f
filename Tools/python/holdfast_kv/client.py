"""The agent's client for engines: never blocks its engine, never fails it, never gives a place back too early.

One thread owns the socket. Calls leave bytes in a bounded queue and return futures; futures always end, and never with
an error: without an agent a look-up finds nothing, a load loads nothing, a save keeps nothing. The rules are those of
``Sources/KVAgent/KVAgent.docc/EngineProtocol.md``, section "What a client owes its engine".
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import random
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from . import protocol
from .arena import Lease, MappedArena, Reservation, map_arena
from .namespace import canary, engine_key, namespace_digest
from .naming import NamedChain
from .protocol import (
    KEY_BYTES,
    AnyChain,
    Chain,
    Committed,
    Found,
    Loaded,
    Loan,
    Ownership,
    Pinned,
    PinOutcome,
    Places,
    Saved,
    StopReason,
)
from .regions import SharedMemory

DEFAULT_SOCKET: Final = "/run/holdfast/agent.sock"
_log = logging.getLogger("holdfast_kv")


@dataclass(frozen=True, slots=True)
class Settings:
    """How patient a client is."""

    #: Seconds a look-up may take; then it is a miss.
    lookup_deadline: float = 0.05
    #: Seconds a load may take unless its caller says otherwise; then it is cancelled.
    load_deadline: float = 5.0
    #: Seconds a save may take; then it is cancelled.
    save_deadline: float = 30.0
    #: Seconds from HELLO to WELCOME.
    hello_deadline: float = 10.0
    #: Seconds before the first try to connect again; doubles up to ``backoff_max``.
    backoff: float = 0.1
    backoff_max: float = 10.0
    #: Bytes of frames that may wait for the agent to read them; beyond it everything is a miss.
    queue_bytes: int = 8 << 20


@dataclass(slots=True)
class Counters:
    """What a client saw."""

    connections: int = 0
    refusals: int = 0
    lookups: int = 0
    lookups_late: int = 0
    loads: int = 0
    loads_cancelled: int = 0
    saves: int = 0
    takes: int = 0
    commits: int = 0
    misses_without_agent: int = 0
    queue_full: int = 0
    orphaned_jobs: int = 0


@dataclass(slots=True)
class _Pending:
    future: Future[Any]
    kind: int
    deadline: float
    first: int = 0
    count: int = 0
    is_cancelled: bool = False
    #: Of a request: the agent's answer came too late for anybody to wait for it.
    is_dead: bool = False


@dataclass(slots=True)
class _Region:
    fd: int
    length: int
    is_dropping: bool = False
    added: Future[bool] = field(default_factory=Future)
    dropped: Future[None] = field(default_factory=Future)


class Client:
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
        on_changed: Callable[[protocol.Changed], None] | None = None,
        checks: bool = True,
        arena: str | None = None,
    ) -> None:
        if arena not in (None, "reading", "writing"):
            raise ValueError(f"an arena is mapped for reading or for writing, not for {arena!r}")
        if arena is not None and ownership == Ownership.ENGINE:
            raise ValueError("an engine that owns its host tier maps no arena: say Ownership.HOST")
        self._path = path
        self._arena_access = arena
        #: The agent's arena, mapped, while the agent is there.
        self.arena: MappedArena | None = None
        self.settings = settings or Settings()
        self.counters = Counters()
        #: Why the agent refused this engine, the last time it did.
        self.refusal: protocol.Refused | None = None
        #: What the agent said at the last welcome.
        self.welcome: protocol.Welcome | None = None
        self._on_changed = on_changed
        self._lock = threading.Lock()
        self._tickets = 0
        self._regions: dict[int, _Region] = {}
        self._requests: dict[int, _Pending] = {}
        self._jobs: dict[int, _Pending] = {}
        self._asked: dict[int, _Pending] = {}
        self._cancelling: dict[int, Future[None]] = {}
        self._orphans: list[_Pending] = []
        #: Frames, those with a naming's chain not encoded yet; the descriptor that travels with one; its bytes.
        self._queue: deque[tuple[bytes | protocol.Frame, int | None, int]] = deque()
        self._queued_bytes = 0
        #: Whether the agent is there, has taken this engine on, and gave a block back as it was. Only read it.
        self.is_open = False
        #: What the last attach's check came to: True, the block came back; None, it was not kept or not loaded.
        self.checked: bool | None = None
        #: Whether the agent gave back other bytes than it was given: then it is not used any more.
        self.is_distrusted = False
        self._is_welcome = False
        self._said_absent = False
        self._digest = namespace_digest(fields)
        self._block_bytes = block_bytes
        self._checks = checks
        self._is_stalled = False
        self._is_closing = False
        self._leaves = False
        self._next_deadline = float("inf")
        self._hello = protocol.encode(
            protocol.Hello(
                kind, store_namespace, int(fields["block_tokens"]), block_bytes, self._digest, dict(fields), client,
                ownership,
            )
        )  # fmt: skip
        self._opened = threading.Event()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._is_awake = True
        self._is_forked = False
        forked = weakref.WeakMethod(self._forked)
        os.register_at_fork(after_in_child=lambda: (method := forked()) is not None and method())
        self._thread = threading.Thread(target=self._run, name="holdfast-kv", daemon=True)
        self._thread.start()

    # ---- what engines call; none of it waits

    def wait_open(self, timeout: float | None = None) -> bool:
        """Waits until the agent has taken this engine on; for starts and tests, never for a scheduler's thread."""
        return self._opened.wait(timeout)

    def add_region(self, fd: int, length: int) -> int:
        """Shares memory; the number is its name in places. Kept over reconnects; the caller may close its ``fd``."""
        with self._lock:
            number = next(n for n in range(len(self._regions) + 1) if n not in self._regions)
            region = self._regions[number] = _Region(os.dup(fd), length)
            if self._is_welcome:
                self._put(protocol.RegionAdd(number, length), region.fd, must=True)
        return number

    def region_added(self, number: int) -> Future[bool]:
        """Ends when the agent has mapped the region for the first time."""
        return self._regions[number].added

    def drop_region(self, number: int) -> Future[None]:
        """Takes memory back; it is the engine's alone when the future has ended."""
        with self._lock:
            region = self._regions[number]
            if not region.is_dropping:
                region.is_dropping = True
                if self._is_welcome:
                    self._put(protocol.RegionDrop(number), must=True)
                elif not self._orphans and not self._jobs:
                    self._forget_region(number)
        return region.dropped

    def lookup(
        self,
        keys: Sequence[bytes] | AnyChain,
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
            ticket = self._ticket()
            pending = self._pending(protocol.Kind.LOOKUP, limit)
            frame = protocol.LookUp(ticket, _chain(keys), prompt_tokens, engine_blocks, session, turn)
            welcome = self.welcome
            room = welcome is None or len(self._requests) < welcome.requests_max
            if not self._is_stalled and room and self._put(frame):
                self._requests[ticket] = pending
                return ticket, pending.future
        self._miss()
        pending.future.set_result(Found(ticket))
        return ticket, pending.future

    def load(
        self,
        keys: Sequence[bytes] | AnyChain | None,
        first: int,
        places: Places,
        *,
        request: int = 0,
        compute_wait: float = 0.0,
        deadline: float | None = None,
    ) -> Future[Loaded]:
        """Brings blocks from ``first`` on to their places. ``keys`` None: the chain of the request's look-up.

        When the future ends the places are the engine's again, always.
        """
        self.counters.loads += 1
        limit = self.settings.load_deadline if deadline is None else deadline
        with self._lock:
            ticket = self._ticket()
            pending = self._pending(protocol.Kind.LOAD, limit, first, places.blocks)
            owner = self._requests.get(request)
            is_known = owner is not None and not owner.is_dead
            if keys is not None or is_known:
                frame = protocol.Load(
                    ticket, Chain() if keys is None else _chain(keys), first, places, request if is_known else 0,
                    int(compute_wait * 1e9), max(1, int(limit * 1e9)),
                )  # fmt: skip
                if self._has_room_for_job() and self._put(frame):
                    self._jobs[ticket] = pending
                    return pending.future
        self._miss()
        pending.future.set_result(Loaded(ticket, first, first))
        return pending.future

    def save(
        self,
        keys: Sequence[bytes] | AnyChain,
        first: int,
        places: Places,
        *,
        request: int = 0,
        eviction_class: int = 0,
        deadline: float | None = None,
    ) -> Future[Saved]:
        """Offers new blocks; ``keys`` ends with the last of them. The places stay unchanged until the future ends."""
        self.counters.saves += 1
        limit = self.settings.save_deadline if deadline is None else deadline
        with self._lock:
            ticket = self._ticket()
            pending = self._pending(protocol.Kind.SAVE, limit, first, places.blocks)
            owner = self._requests.get(request)
            request = request if owner is not None and not owner.is_dead else 0
            frame = protocol.Save(ticket, _chain(keys), first, places, request, eviction_class)
            if self._has_room_for_job() and self._put(frame):
                self._jobs[ticket] = pending
                return pending.future
        self._miss()
        pending.future.set_result(Saved(ticket, places.blocks))
        return pending.future

    def take(
        self,
        keys: Sequence[bytes] | AnyChain | None,
        first: int,
        blocks: int,
        *,
        request: int = 0,
        verify: bool = True,
        compute_wait: float = 0.0,
        lifetime: float = 0.0,
        deadline: float | None = None,
    ) -> Future[Lease | None]:
        """Borrows the leading run of ``blocks`` blocks from ``first`` on, to be read where they lie; None: nothing there.

        ``keys`` None: the chain of the request's look-up; then the lease ends with the request. With ``verify`` the agent
        compares checksums before it hands blocks over. ``lifetime`` in seconds, 0: as long as the agent lends.
        """
        self.counters.takes += 1
        limit = self.settings.load_deadline if deadline is None else deadline
        with self._lock:
            ticket = self._ticket()
            pending = self._pending(protocol.Kind.TAKE, limit, first, blocks)
            owner = self._requests.get(request)
            is_known = owner is not None and not owner.is_dead
            if (keys is not None or is_known) and self.arena is not None and blocks > 0:
                frame = protocol.Take(
                    ticket, Chain() if keys is None else _chain(keys), first, blocks, request if is_known else 0, verify,
                    int(compute_wait * 1e9), max(1, int(limit * 1e9)), int(lifetime * 1e9),
                )  # fmt: skip
                if self._has_room_for_job() and self._put(frame):
                    self._jobs[ticket] = pending
                    return pending.future
        self._miss()
        pending.future.set_result(None)
        return pending.future

    def reserve(
        self, slots: int, *, lifetime: float = 0.0, deadline: float | None = None
    ) -> Future[Reservation | None]:
        """Empty slots to write into, as many as ``slots`` or fewer; None when there are none."""
        limit = self.settings.load_deadline if deadline is None else deadline
        with self._lock:
            ticket = self._ticket()
            pending = self._pending(protocol.Kind.RESERVE, limit, 0, slots)
            if self.arena is not None and self.arena.shape.writable and slots > 0:
                frame = protocol.Reserve(ticket, slots, int(lifetime * 1e9))
                if self._has_room_for_job() and self._put(frame):
                    self._jobs[ticket] = pending
                    return pending.future
        pending.future.set_result(None)
        return pending.future

    def commit(
        self,
        loan: Loan,
        slots: Sequence[int],
        keys: Sequence[bytes] | AnyChain,
        *,
        request: int = 0,
        eviction_class: int = 0,
        deadline: float | None = None,
    ) -> Future[Saved]:
        """Makes reserved slots the last blocks of a chain. ``Reservation.commit`` is the way to it."""
        self.counters.commits += 1
        limit = self.settings.save_deadline if deadline is None else deadline
        with self._lock:
            ticket = self._ticket()
            pending = self._pending(protocol.Kind.COMMIT, limit, 0, len(slots))
            owner = self._requests.get(request)
            request = request if owner is not None and not owner.is_dead else 0
            chain = _chain(keys)
            # A naming's keys are made on the client's thread.
            first = (chain.count if isinstance(chain, NamedChain) else len(chain.keys)) - len(slots)
            if slots and first >= 0:
                frame = protocol.Commit(ticket, chain, first, loan, tuple(slots), request, eviction_class)
                if self._has_room_for_job() and self._put(frame):
                    self._jobs[ticket] = pending
                    return pending.future
        self._miss()
        pending.future.set_result(Committed(ticket, len(slots)))
        return pending.future

    def release(self, loan: Loan) -> Future[bool]:
        """Gives a loan back; whether it was in force until then. ``Lease.release`` is the way to it."""
        with self._lock:
            ticket = self._ticket()
            pending = self._pending(protocol.Kind.RELEASE, self.settings.load_deadline)
            if self.arena is not None and self._put(protocol.Release(ticket, loan), must=True):
                self._asked[ticket] = pending
                return pending.future
        pending.future.set_result(False)
        return pending.future

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
        """A request's end."""
        with self._lock:
            pending = self._requests.pop(request, None)
            if pending is None or pending.is_dead:
                return
            self._put(
                protocol.Finished(
                    request, reason, cached_tokens, int(time_to_first_token * 1e9), int(resumes_after * 1e9),
                    answer_tokens,
                ),
                must=True,
            )  # fmt: skip
        if not pending.future.done():
            pending.future.set_result(Found(request))

    def cancel(self, request: int) -> Future[None]:
        """Gives a request up, its jobs included; ends when nothing touches their places."""
        done: Future[None] = _future()
        with self._lock:
            pending = self._requests.get(request)
            if pending is not None and not pending.is_dead and self._put(protocol.Cancel(request), must=True):
                pending.is_dead = True
                self._cancelling[request] = done
                return done
        done.set_result(None)
        return done

    def prefetch(self, keys: Sequence[bytes] | AnyChain) -> None:
        """A hint: these blocks will be asked for."""
        with self._lock:
            self._put(protocol.Prefetch(_chain(keys)))

    def touch(self, keys: Sequence[bytes] | AnyChain) -> None:
        """A hint: these blocks were used without a request."""
        with self._lock:
            self._put(protocol.Touch(_chain(keys)))

    def pin(self, keys: Sequence[bytes] | AnyChain, lifetime: float) -> tuple[int, Future[Pinned]]:
        """Keeps what is on this node of a chain for ``lifetime`` seconds."""
        with self._lock:
            ticket = self._ticket()
            pending = self._pending(protocol.Kind.PIN, self.settings.load_deadline)
            if self._put(protocol.Pin(ticket, _chain(keys), max(1, int(lifetime * 1e9)))):
                self._asked[ticket] = pending
                return ticket, pending.future
        pending.future.set_result(Pinned(ticket, PinOutcome.NOTHING_HERE))
        return ticket, pending.future

    def unpin(self, pin: int) -> None:
        """Takes a pin back before its time."""
        with self._lock:
            self._put(protocol.Unpin(pin))

    def statistics(self) -> Future[Mapping[str, int]]:
        """The agent's numbers, empty without one."""
        return self._ask(protocol.Kind.STATS, {})

    def ping(self) -> Future[bool]:
        """Whether the agent answers."""
        return self._ask(protocol.Kind.PING, False)

    @property
    def open_jobs(self) -> int:
        """Jobs whose places are not the engine's yet."""
        return len(self._jobs) + len(self._orphans)

    def drain(self, timeout: float | None = None) -> bool:
        """Waits until no job is open; for resets, never for a scheduler's thread in the middle of its work."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                futures = [job.future for job in (*self._jobs.values(), *self._orphans)]
            if not futures:
                return True
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                futures[0].exception(left)

    def close(self, timeout: float = 5.0) -> bool:
        """Says goodbye and waits for open jobs. False: some did not end, and their places must not be used."""
        if self._is_forked:
            return True
        with self._lock:
            self._leaves = True
        self._wake()
        is_quiet = self.drain(timeout)
        with self._lock:
            self._is_closing = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
            with self._lock:
                if not self._thread.is_alive() and self._wake_write >= 0:
                    os.close(self._wake_read)
                    os.close(self._wake_write)
                    self._wake_read = self._wake_write = -1
        return is_quiet

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- helpers of the callers' side, all under the lock

    def _ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    def _pending(self, kind: int, limit: float, first: int = 0, count: int = 0) -> _Pending:
        deadline = time.monotonic() + limit
        if deadline < self._next_deadline:
            self._next_deadline = deadline
        return _Pending(_future(), kind, deadline, first, count)

    def _has_room_for_job(self) -> bool:
        return self.welcome is None or len(self._jobs) < self.welcome.jobs_max

    def _forked(self) -> None:
        # The child has no thread; its calls miss. The connection is the parent's.
        self._is_forked = True
        self.is_open = self._is_welcome = False
        self._lock = threading.Lock()

    def _put(self, frame: protocol.Frame, fd: int | None = None, *, must: bool = False) -> bool:
        if not (self._is_welcome if must else self.is_open and not self._leaves):
            return False
        data: bytes | protocol.Frame
        chain = getattr(frame, "chain", None)
        if isinstance(chain, NamedChain):
            # Its keys are made on the client's thread.
            places = getattr(frame, "places", None)
            data, size = frame, 64 + chain.count * KEY_BYTES + (len(places.packed) if places is not None else 0)
        else:
            data = protocol.encode(frame)
            size = len(data)
        if self._queued_bytes + size > self.settings.queue_bytes and not must:
            self.counters.queue_full += 1
            return False
        self._queue.append((data, fd, size))
        self._queued_bytes += size
        if not self._is_awake:
            self._wake()
        return True

    def _ask(self, kind: protocol.Kind, nothing: Any) -> Future[Any]:
        with self._lock:
            ticket = self._ticket()
            pending = self._pending(kind, self.settings.load_deadline)
            frame = protocol.Stats(ticket) if kind == protocol.Kind.STATS else protocol.Ping(ticket)
            if self._put(frame):
                self._asked[ticket] = pending
                return pending.future
        pending.future.set_result(nothing)
        return pending.future

    def _miss(self) -> None:
        if not self.is_open:
            self.counters.misses_without_agent += 1

    def _wake(self) -> None:
        self._is_awake = True
        if self._wake_write >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b"\0")

    def _forget_region(self, number: int) -> None:
        region = self._regions.pop(number)
        os.close(region.fd)
        region.dropped.set_result(None)

    # ---- the thread

    def _run(self) -> None:
        wait = 0.0
        try:
            while not self._is_closing and not (self._leaves and not self._orphans):
                connection = self._connect()
                if connection is None:
                    # Nobody listens: an agent does as long as it maps anything.
                    self._end_orphans()
                if not isinstance(connection, socket.socket) and not self._said_absent:
                    self._said_absent = True
                    _log.warning("no agent at %s; the engine goes on without it, and it is looked for again", self._path)
                if isinstance(connection, socket.socket):
                    try:
                        wait = 0.0 if self._converse(connection) else max(wait, self.settings.backoff)
                    finally:
                        self._lose(connection)
                self._sleep(wait * (1 + random.random() / 4))
                wait = min(self.settings.backoff_max, max(self.settings.backoff, wait * 2))
        except Exception:  # the engine must not learn of it
            _log.exception("the agent's client ends by a mistake of its own; the engine goes on without a cache")
        finally:
            with self._lock:
                self.is_open = self._is_welcome = False
                self._is_closing = True
                for region in self._regions.values():
                    os.close(region.fd)
                self._regions.clear()

    def _connect(self) -> socket.socket | bool | None:
        """A connection; None when nobody listens there; False when it is not known."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            return None if error.errno in (errno.ECONNREFUSED, errno.ENOENT) else False
        return connection

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._is_closing and (left := deadline - time.monotonic()) > 0:
            select.select([self._wake_read], [], [], left)
            self._clear_wake()

    def _clear_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_read, 4096):
                pass

    def _converse(self, connection: socket.socket) -> bool:
        """Speaks until the connection ends. Whether the agent had taken this engine on."""
        splitter = protocol.Splitter()
        passed: deque[int] = deque()
        try:
            return self._talk(connection, splitter, passed)
        finally:
            for fd in passed:
                os.close(fd)

    def _talk(self, connection: socket.socket, splitter: protocol.Splitter, passed: deque[int]) -> bool:
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        waiting = memoryview(self._hello)
        passing: int | None = None
        hello_deadline = time.monotonic() + self.settings.hello_deadline
        was_open = False
        said_goodbye = False
        while not self._is_closing:
            # What can go, goes.
            while True:
                if not waiting:
                    data: bytes | protocol.Frame | None = None
                    with self._lock:
                        if self._queue:
                            data, passing, size = self._queue.popleft()
                            self._queued_bytes -= size
                        elif self._leaves and was_open and not said_goodbye:
                            said_goodbye = True
                            waiting = memoryview(protocol.encode(protocol.Goodbye()))
                        else:
                            break
                    if data is not None:
                        waiting = memoryview(data if isinstance(data, bytes) else protocol.encode(data))
                try:
                    if passing is None:
                        sent = connection.send(waiting)
                    else:
                        sent = socket.send_fds(connection, [waiting], [passing])
                        passing = None
                except BlockingIOError:
                    break
                except OSError:
                    return was_open
                waiting = waiting[sent:]
            poller.register(connection, select.POLLIN | (select.POLLOUT if waiting else 0))
            with self._lock:
                self._is_awake = bool(self._queue)
                deadline = self._next_deadline if was_open else hello_deadline
            limit = max(0.0, deadline - time.monotonic())
            if not self._is_awake or waiting:
                events = dict(poller.poll(None if limit == float("inf") else min(limit, 3600.0) * 1000 + 1))
                self._is_awake = True
                if self._wake_read in events:
                    self._clear_wake()
                if events.get(connection.fileno(), 0) & ~select.POLLOUT:
                    try:
                        if self._arena_access is None:
                            data = connection.recv(1 << 18)
                        else:
                            data, fds, _, _ = socket.recv_fds(connection, 1 << 18, 4)
                            passed.extend(fds)
                    except BlockingIOError:
                        continue
                    except OSError:
                        return was_open
                    if not data:
                        return was_open
                    try:
                        frames = splitter.feed(data)
                    except protocol.ProtocolError as error:
                        _log.error("the agent sent what is no frame: %s", error)
                        return was_open
                    for frame in frames:
                        if isinstance(frame, protocol.Welcome):
                            self._open(frame)
                            was_open = True
                        elif isinstance(frame, protocol.Refused):
                            self._refuse(frame)
                            return False
                        elif isinstance(frame, protocol.ArenaOpened):
                            arena = map_arena(frame, [passed.popleft() for _ in range(min(2, len(passed)))])
                            if arena is None:
                                _log.error("the agent's arena cannot be mapped; its blocks are not used")
                                return was_open
                            self._begin(arena)
                        else:
                            self._take(frame)
            now = time.monotonic()
            if was_open:
                self._expire(now)
            elif now >= hello_deadline:
                return False
        if was_open and not said_goodbye and not waiting:
            with contextlib.suppress(OSError):
                connection.send(protocol.encode(protocol.Goodbye()))
        return was_open

    def _open(self, welcome: protocol.Welcome) -> None:
        self.counters.connections += 1
        with self._lock:
            self.welcome = welcome
            self._is_welcome = True
            self._is_stalled = False
            for number, region in list(self._regions.items()):
                if region.is_dropping:
                    self._forget_region(number)
                else:
                    self._put(protocol.RegionAdd(number, region.length), region.fd, must=True)
            if self._on_changed is not None:
                self._put(protocol.Subscribe(), must=True)
            if self._arena_access is not None:
                self._put(protocol.Arena(self._arena_access == "writing"), must=True)
        # Nothing touches any more what earlier connections shared: that is what a welcome says.
        self._end_orphans()
        if self._arena_access is None:
            self._begin(None)

    def _begin(self, arena: MappedArena | None) -> None:
        """The engine is attached, with everything that it asked for."""
        welcome = self.welcome
        self.arena = arena
        if self._checks and welcome is not None and welcome.regions_max - 1 not in self._regions:
            self._check(welcome.regions_max - 1)
        else:
            self._admit()

    def _admit(self) -> None:
        with self._lock:
            self.is_open = self._is_welcome
        if self.is_open:
            if self._said_absent:
                _log.warning("the agent at %s is there", self._path)
            self._said_absent = False
            self._opened.set()

    def _check(self, number: int) -> None:
        """Has a block saved, loaded and compared; what engines ask goes out only then."""
        size = self._block_bytes
        memory = SharedMemory(2 * size, "holdfast-canary")
        expected = canary(self._digest, size)
        memory.view[:size] = expected
        chain = Chain((engine_key(self._digest, b"holdfast-canary-1"),), group=0xFFFF)
        connection = self.counters.connections

        def begin(kind: protocol.Kind, row: int) -> Future[Any]:
            with self._lock:
                ticket = self._ticket()
                pending = self._jobs[ticket] = self._pending(kind, self.settings.load_deadline, 0, 1)
                places = Places.of([(number, row * size, size)])
                self._put(
                    protocol.Save(ticket, chain, 0, places)
                    if kind == protocol.Kind.SAVE
                    else protocol.Load(ticket, chain, 0, places),
                    must=True,
                )
            return pending.future

        def saved(future: Future[Saved]) -> None:
            if future.result().is_kept(0):
                begin(protocol.Kind.LOAD, 1).add_done_callback(loaded)
            else:
                end(None)

        def loaded(future: Future[Loaded]) -> None:
            end(memory.view[size:] == expected if future.result().end == 1 else None)

        def end(is_equal: bool | None) -> None:
            memory.close()
            with self._lock:
                if connection != self.counters.connections or not self._is_welcome:
                    return
                self._put(protocol.RegionDrop(number), must=True)
            self.checked = is_equal
            if is_equal is not False:
                self._admit()
                return
            self.is_distrusted = True
            _log.error("the agent at %s gave back other bytes than it was given; it is not used", self._path)
            with self._lock:
                self._leaves = True

        with self._lock:
            self._put(protocol.RegionAdd(number, memory.length), memory.fd, must=True)
        begin(protocol.Kind.SAVE, 0).add_done_callback(saved)

    def _refuse(self, refused: protocol.Refused) -> None:
        self.counters.refusals += 1
        if self.refusal != refused:
            _log.error("the agent refuses this engine (%s): %s", refused.code.name.lower(), refused.reason)
        self.refusal = refused

    def _lose(self, connection: socket.socket) -> None:
        """The connection ended: requests miss at once, jobs when nothing can touch their places."""
        connection.close()
        with self._lock:
            self.is_open = self._is_welcome = False
            self.arena = None
            self._opened.clear()
            self._queue.clear()
            self._queued_bytes = 0
            asked = [*self._requests.items(), *self._asked.items()]
            self._requests.clear()
            self._asked.clear()
            self._orphans += self._jobs.values()
            self.counters.orphaned_jobs += len(self._jobs)
            self._jobs.clear()
            cancelling = list(self._cancelling.values())
            self._cancelling.clear()
            if cancelling and self._orphans:
                # Whoever waits for a request's end waits for its jobs' places.
                self._orphans += [_Pending(done, protocol.Kind.CANCEL, 0.0) for done in cancelling]
                cancelling = []
        for ticket, pending in asked:
            if not pending.future.done():
                pending.future.set_result(_nothing(ticket, pending))
        for done in cancelling:
            done.set_result(None)

    def _end_orphans(self) -> None:
        with self._lock:
            orphans, self._orphans = self._orphans, []
            if not self._is_welcome:
                for number in [n for n, region in self._regions.items() if region.is_dropping]:
                    self._forget_region(number)
        for pending in orphans:
            pending.future.set_result(_nothing(0, pending))

    def _expire(self, now: float) -> None:
        if now < self._next_deadline:
            return
        late: list[tuple[int, _Pending]] = []
        with self._lock:
            for ticket, pending in self._requests.items():
                if pending.future.done() or pending.is_dead or now < pending.deadline:
                    continue
                # The agent is slow: until it says something again, nobody waits for it.
                self.counters.lookups_late += 1
                self._is_stalled = True
                pending.is_dead = True
                self._put(protocol.Cancel(ticket), must=True)
                late.append((ticket, pending))
            for ticket, pending in self._jobs.items():
                if not pending.is_cancelled and now >= pending.deadline:
                    pending.is_cancelled = True
                    self.counters.loads_cancelled += pending.kind == protocol.Kind.LOAD
                    self._put(protocol.Cancel(ticket), must=True)
            for ticket in [t for t, pending in self._asked.items() if now >= pending.deadline]:
                late.append((ticket, self._asked.pop(ticket)))
            waiting = [p.deadline for p in self._requests.values() if not (p.future.done() or p.is_dead)]
            waiting += [p.deadline for p in self._jobs.values() if not p.is_cancelled]
            waiting += [p.deadline for p in self._asked.values()]
            self._next_deadline = min(waiting, default=float("inf"))
        for ticket, pending in late:
            pending.future.set_result(_nothing(ticket, pending))

    def _take(self, frame: protocol.Frame) -> None:
        self._is_stalled = False
        if isinstance(frame, protocol.Changed):
            if self._on_changed is not None:
                self._on_changed(frame)
            return
        if isinstance(frame, protocol.Farewell):
            _log.info("the agent says farewell: %s", frame.reason)
            return
        ended: Future[Any] | None = None
        result: Any = frame
        with self._lock:
            if isinstance(frame, protocol.Found):
                pending = self._requests.get(frame.ticket)
                ended = pending.future if pending is not None and not pending.is_dead else None
            elif isinstance(frame, (protocol.Loaded, protocol.Saved)):
                pending = self._jobs.pop(frame.ticket, None)
                ended = pending.future if pending is not None else None
            elif isinstance(frame, (protocol.Taken, protocol.Reserved)):
                pending = self._jobs.pop(frame.ticket, None)
                ended, result = (pending.future if pending is not None else None), None
                if self.arena is not None:
                    if isinstance(frame, protocol.Taken) and frame.blocks:
                        result = Lease(self, self.arena, frame, self._block_bytes)
                    elif isinstance(frame, protocol.Reserved) and frame.slots:
                        result = Reservation(self, self.arena, frame, self._block_bytes)
            elif isinstance(frame, protocol.Cancelled):
                pending = self._jobs.pop(frame.ticket, None)
                if pending is not None:
                    ended, result = pending.future, _nothing(frame.ticket, pending)
                else:
                    gone = self._requests.pop(frame.ticket, None)
                    ended, result = self._cancelling.pop(frame.ticket, None), None
                    if gone is not None and not gone.future.done():
                        gone.future.set_result(Found(frame.ticket))
            elif isinstance(frame, (protocol.Pinned, protocol.Statistics, protocol.Pong, protocol.Released)):
                pending = self._asked.pop(frame.ticket, None)
                ended = pending.future if pending is not None else None
                if isinstance(frame, protocol.Statistics):
                    result = frame.values
                elif isinstance(frame, protocol.Pong):
                    result = True
                elif isinstance(frame, protocol.Released):
                    result = frame.was_in_force
            elif isinstance(frame, protocol.RegionAdded):
                region = self._regions.get(frame.region)
                if region is not None and not region.added.done():
                    ended, result = region.added, True
            elif isinstance(frame, protocol.RegionDropped) and frame.region in self._regions:
                self._forget_region(frame.region)
        if ended is not None and not ended.done():
            ended.set_result(result)


class AsyncClient:
    """The same for asyncio: what ``Client`` answers with futures is awaited here."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def lookup(self, keys: Sequence[bytes] | AnyChain, *, prompt_tokens: int, **more: Any) -> tuple[int, Found]:
        """See ``Client.lookup``."""
        ticket, future = self.client.lookup(keys, prompt_tokens=prompt_tokens, **more)
        return ticket, await asyncio.wrap_future(future)

    async def load(self, keys: Sequence[bytes] | AnyChain | None, first: int, places: Places, **more: Any) -> Loaded:
        """See ``Client.load``. Cancelling the waiting task does not cancel the job: its places stay the agent's."""
        return await asyncio.shield(asyncio.wrap_future(self.client.load(keys, first, places, **more)))

    async def save(self, keys: Sequence[bytes] | AnyChain, first: int, places: Places, **more: Any) -> Saved:
        """See ``Client.save``."""
        return await asyncio.shield(asyncio.wrap_future(self.client.save(keys, first, places, **more)))

    async def cancel(self, request: int) -> None:
        """See ``Client.cancel``."""
        await asyncio.shield(asyncio.wrap_future(self.client.cancel(request)))

    async def statistics(self) -> Mapping[str, int]:
        """See ``Client.statistics``."""
        return await asyncio.wrap_future(self.client.statistics())

    async def ping(self) -> bool:
        """See ``Client.ping``."""
        return await asyncio.wrap_future(self.client.ping())


def _future() -> Future[Any]:
    future: Future[Any] = Future()
    # A running future cannot be cancelled: whoever stops waiting must not make a place look free.
    future.set_running_or_notify_cancel()
    return future


def _chain(keys: Sequence[bytes] | AnyChain) -> AnyChain:
    return keys if isinstance(keys, (Chain, NamedChain)) else Chain(tuple(keys))  # type: ignore[arg-type]


def _nothing(ticket: int, pending: _Pending) -> Any:
    """What a caller hears when there is no cache."""
    if pending.kind == protocol.Kind.LOOKUP:
        return Found(ticket)
    if pending.kind == protocol.Kind.LOAD:
        return Loaded(ticket, pending.first, pending.first)
    if pending.kind == protocol.Kind.SAVE:
        return Saved(ticket, pending.count)
    if pending.kind == protocol.Kind.COMMIT:
        return Committed(ticket, pending.count)
    if pending.kind == protocol.Kind.PIN:
        return Pinned(ticket, PinOutcome.NOTHING_HERE)
    if pending.kind == protocol.Kind.STATS:
        return {}
    return False if pending.kind in (protocol.Kind.PING, protocol.Kind.RELEASE) else None
