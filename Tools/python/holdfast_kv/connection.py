"""The socket to the agent and the one thread that speaks on it. It comes back by itself and never makes its callers wait.

Callers that send their frames themselves were tried: a ping took as long, 57 to 61 µs at best against 58 to 69. What costs
is the answer's way to the thread that waits for it.

What a connection means to an engine is not known here: ``Attachment`` says that, in the methods that are left open. They are
called on the connection's thread, without its lock.
"""

from __future__ import annotations

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
from abc import ABC, abstractmethod
from collections import deque
from typing import Final

from .naming import NamedChain
from .protocol import (
    KEY_BYTES,
    ArenaOpened,
    Frame,
    Goodbye,
    ProtocolError,
    Refused,
    Splitter,
    Welcome,
    encode,
)
from .settings import Counters, Settings

#: Bytes that are read at once.
_READ_BYTES: Final = 1 << 18
log = logging.getLogger("holdfast_kv")


class Connection(ABC):
    """Frames out through a bounded queue, frames in through the methods left open, for as long as its owner lives."""

    def __init__(self, path: str, hello: bytes, settings: Settings, *, takes_memory: bool) -> None:
        self._path = path
        self._hello = hello
        self._takes_memory = takes_memory
        self.settings = settings
        self.counters = Counters()
        self._lock = threading.Lock()
        #: Frames, those with a naming's chain not encoded yet; the descriptor that travels with one; its bytes.
        self._queue: deque[tuple[bytes | Frame, int | None, int]] = deque()
        self._queued_bytes = 0
        self._is_welcome = False
        self._said_absent = False
        self._was_there = False
        self._missing_since: float | None = None
        self._is_closing = False
        self._leaves = False
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._is_awake = True
        self._is_forked = False
        #: The socket, while there is a connection.
        self._socket: socket.socket | None = None
        forked = weakref.WeakMethod(self._forked)
        os.register_at_fork(after_in_child=lambda: (method := forked()) is not None and method())
        self._thread = threading.Thread(target=self._run, name="holdfast-kv", daemon=True)

    # ---- what an owner makes of it

    @property
    @abstractmethod
    def _deadline(self) -> float:
        """When ``_expire`` has something to do."""

    @property
    @abstractmethod
    def _is_owed(self) -> bool:
        """Whether an earlier connection left something open that only a next one, or nobody there, can end."""

    @abstractmethod
    def _welcomed(self, welcome: Welcome) -> None:
        """The agent has taken this engine on."""

    @abstractmethod
    def _refused(self, refused: Refused) -> None:
        """It has not; the connection ends."""

    @abstractmethod
    def _opened(self, opened: ArenaOpened, fds: list[int]) -> bool:
        """The agent hands its arena over; False ends the connection."""

    @abstractmethod
    def _received(self, frame: Frame) -> None:
        """Any other frame."""

    @abstractmethod
    def _expire(self, now: float) -> None:
        """Time has passed."""

    @abstractmethod
    def _lost(self) -> None:
        """The connection has ended; ``_discard`` belongs to it."""

    @abstractmethod
    def _nobody_listens(self) -> None:
        """No agent is there: one listens for as long as it maps anything."""

    @abstractmethod
    def _ended(self) -> None:
        """The thread ends; nothing is heard of any agent any more."""

    # ---- callers' side, under the lock

    def _enqueue(self, frame: Frame, fd: int | None, *, must: bool) -> bool:
        """Leaves a frame to be sent. False: the queue is full, and ``must`` was not said."""
        data: bytes | Frame
        chain = getattr(frame, "chain", None)
        if isinstance(chain, NamedChain):
            # Its keys are made on the connection's thread.
            places = getattr(frame, "places", None)
            data, size = frame, 64 + chain.count * KEY_BYTES + (len(places.packed) if places is not None else 0)
        else:
            data = encode(frame)
            size = len(data)
        if self._queued_bytes + size > self.settings.queue_bytes and not must:
            self.counters.queue_full += 1
            return False
        self._queue.append((data, fd, size))
        self._queued_bytes += size
        if not self._is_awake:
            self._wake()
        return True

    def _discard(self) -> None:
        """The connection has ended: what waits is not sent any more."""
        self._is_welcome = False
        self._queue.clear()
        self._queued_bytes = 0

    def _wake(self) -> None:
        self._is_awake = True
        if self._wake_write >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b"\0")

    # ---- callers' side, without it

    def _say_goodbye(self) -> None:
        """Nothing more is taken; the agent hears of it behind what waits."""
        with self._lock:
            self._leaves = True
        self._wake()

    def _end(self, timeout: float) -> None:
        """Ends the thread."""
        with self._lock:
            self._is_closing = True
        self._wake()
        if threading.current_thread() is self._thread:
            return
        self._thread.join(timeout)
        with self._lock:
            if not self._thread.is_alive() and self._wake_write >= 0:
                os.close(self._wake_read)
                os.close(self._wake_write)
                self._wake_read = self._wake_write = -1

    def _forked(self) -> None:
        # The child has no thread; its calls miss. The connection is the parent's.
        self._is_forked = True
        self._is_welcome = False
        self._lock = threading.Lock()
        # With the child's copy open the agent would not see the parent's end.
        if self._socket is not None:
            self._socket.close()

    # ---- the thread

    def _run(self) -> None:
        wait = 0.0
        try:
            while not self._is_closing and not (self._leaves and not self._is_owed):
                connection = self._connect()
                if connection is None:
                    self._nobody_listens()
                if not isinstance(connection, socket.socket) and not self._said_absent:
                    self._said_absent = True
                    log.warning("no agent at %s; the engine goes on without it, and it is looked for again", self._path)
                if isinstance(connection, socket.socket):
                    self._was_there = True
                    self._socket = connection
                    try:
                        opened = _Conversation(self, connection).run()
                        if opened is None:
                            wait = max(wait, self.settings.backoff)
                        elif time.monotonic() - opened >= self.settings.backoff:
                            # Being taken on is not enough: an agent may break off each time.
                            wait = 0.0
                    finally:
                        self._socket = None
                        connection.close()
                        self._lost()
                self._sleep(wait * (1 + random.random() / 4))
                wait = min(self.settings.backoff_max, max(self.settings.backoff, wait * 2))
        except Exception:  # the engine must not learn of it
            log.exception("the agent's client ends by a mistake of its own; the engine goes on without a cache")
        finally:
            self._ended()

    def _connect(self) -> socket.socket | bool | None:
        """A connection; None when its agent has ended, if there ever was one; False when it is not known."""
        missing_since, self._missing_since = self._missing_since, None
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            if error.errno == errno.ENOENT:
                # Somebody may have removed it: a living agent makes it anew within a second.
                now = time.monotonic()
                self._missing_since = now if missing_since is None else missing_since
                return None if not self._was_there or now - self._missing_since >= self.settings.absence else False
            # An agent listens as long as it has anything mapped.
            return None if error.errno == errno.ECONNREFUSED else False
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


class _Conversation:
    """One connection, from HELLO to its end."""

    def __init__(self, link: Connection, connection: socket.socket) -> None:
        self._link = link
        self._socket = connection
        self._splitter = Splitter()
        #: Descriptors that came and that no frame has taken yet.
        self._passed: deque[int] = deque()
        #: What is left of the frame on its way, and the descriptor that goes with its first byte.
        self._waiting = memoryview(link._hello)
        self._passing: int | None = None
        self._is_welcome = False
        self._opened: float | None = None
        self._said_goodbye = False

    def run(self) -> float | None:
        """Speaks until the connection ends. When the agent had taken this engine on, None: it had not."""
        hello_deadline = time.monotonic() + self._link.settings.hello_deadline
        poller = select.poll()
        poller.register(self._link._wake_read, select.POLLIN)
        try:
            while not self._link._is_closing:
                if not self._send():
                    return self._opened
                if not self._wait(poller, hello_deadline):
                    return self._opened
                now = time.monotonic()
                if self._is_welcome:
                    self._link._expire(now)
                elif now >= hello_deadline:
                    return None
            # It may have been told to end before it saw what waits: what the socket takes now still goes.
            self._send()
            return self._opened
        finally:
            for fd in self._passed:
                os.close(fd)

    def _send(self) -> bool:
        """What can go, goes. False: the connection is gone."""
        while self._waiting or self._next():
            try:
                if self._passing is None:
                    sent = self._socket.send(self._waiting)
                else:
                    sent = socket.send_fds(self._socket, [self._waiting], [self._passing])
                    self._passing = None
            except BlockingIOError:
                break
            except OSError:
                return False
            self._waiting = self._waiting[sent:]
        return True

    def _next(self) -> bool:
        """Takes the next frame off the queue; at its end, goodbye is said."""
        link = self._link
        with link._lock:
            if link._queue:
                data, self._passing, size = link._queue.popleft()
                link._queued_bytes -= size
            elif link._leaves and self._is_welcome and not self._said_goodbye:
                self._said_goodbye = True
                data = Goodbye()
            else:
                return False
        self._waiting = memoryview(data if isinstance(data, bytes) else encode(data))
        return True

    def _wait(self, poller: select.poll, hello_deadline: float) -> bool:
        """Waits until there is something to do, and takes in what came. False: the connection has ended."""
        link = self._link
        poller.register(self._socket, select.POLLIN | (select.POLLOUT if self._waiting else 0))
        with link._lock:
            link._is_awake = bool(link._queue)
            deadline = link._deadline if self._is_welcome else hello_deadline
            if link._is_awake and not self._waiting:
                return True
        limit = max(0.0, deadline - time.monotonic())
        events = dict(poller.poll(None if limit == float("inf") else min(limit, 3600.0) * 1000 + 1))
        link._is_awake = True
        if link._wake_read in events:
            link._clear_wake()
        if not events.get(self._socket.fileno(), 0) & ~select.POLLOUT:
            return True
        try:
            frames = self._read()
        except ProtocolError as error:
            log.error("the agent sent what is no frame: %s", error)
            return False
        return frames is not None and all(self._take(frame) for frame in frames)

    def _read(self) -> list[Frame] | None:
        """The frames that became whole. None: the connection has ended."""
        try:
            if not self._link._takes_memory:
                data = self._socket.recv(_READ_BYTES)
            else:
                data, fds, _, _ = socket.recv_fds(self._socket, _READ_BYTES, 4)
                self._passed.extend(fds)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return self._splitter.feed(data) if data else None

    def _take(self, frame: Frame) -> bool:
        """Takes a frame in. False: the connection ends."""
        if isinstance(frame, Welcome):
            self._is_welcome = True
            self._opened = time.monotonic()
            self._link._welcomed(frame)
        elif isinstance(frame, Refused):
            self._is_welcome = False
            self._opened = None
            self._link._refused(frame)
            return False
        elif isinstance(frame, ArenaOpened):
            return self._link._opened(frame, [self._passed.popleft() for _ in range(min(2, len(self._passed)))])
        else:
            self._link._received(frame)
        return True
