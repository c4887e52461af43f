"""Blocks between an engine's own memory and the agent, whatever that memory is and however large a block.

Memory that is a shared mapping of a file (memfd, ``/dev/shm``) is handed to the agent by its descriptor: then no byte
passes through this process. Any other memory is copied through a staging region. A payload that is not as long as the
agent's blocks travels in parts, the last one filled up; a payload of several pieces keeps their order.

Calls wait for the agent, each within its deadline: they are for an engine's I/O threads. Only of memory that the agent was
handed they wait until it lets go: an agent that stands still in the middle of a job may go on and write, or read, there.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Final, TypeVar

from .client import Client
from .held import HeldLookUps
from .protocol import KEYS_MAX, SEGMENTS_MAX, SLICES_MAX, Chain, Loaded, Places, Saved
from .regions import SharedMemory, StagingRegion

_Result = TypeVar("_Result")

#: Seconds behind its deadline in which a cancelled job's end is waited for.
_CANCEL_SECONDS: Final = 1.0

Piece = tuple[int, int]
"""Bytes of this process: address and length."""

_log = logging.getLogger("holdfast_kv")


@dataclass(frozen=True, slots=True)
class _Shared:
    region: int
    address: int
    offset: int
    length: int


class Mover:
    """Moves blocks of one engine. Any thread may call it."""

    def __init__(self, client: Client, *, block_bytes: int, staging_bytes: int = 64 << 20) -> None:
        self.client: Final = client
        self.block_bytes: Final = block_bytes
        self._staging_slots = max(2, staging_bytes // block_bytes)
        self._staging: StagingRegion | None = None
        self._staging_free = threading.Condition()
        self._shared: list[_Shared] = []
        self._pad: tuple[int, SharedMemory] | None = None
        self._lock = threading.Lock()
        self._held = HeldLookUps(client)
        #: Bytes that went by descriptor, and bytes that were copied here.
        self.bytes_shared = 0
        self.bytes_copied = 0

    # ---- memory

    def share(self, address: int, length: int) -> bool:
        """Hands memory to the agent if it is a shared mapping of a file; False: its blocks are copied."""
        found = shared_mapping(address, length)
        if found is None:
            return False
        fd, offset = found
        try:
            size = os.fstat(fd).st_size
            region = self.client.add_region(fd, size)
        finally:
            os.close(fd)
        self._shared.append(_Shared(region, address, offset, length))
        return True

    def parts_of(self, payload: int) -> int:
        """How many blocks a payload of that many bytes fills."""
        return -(-payload // self.block_bytes)

    # ---- jobs

    def look_up(self, chain: Chain, *, prompt_tokens: int, deadline: float | None = None) -> int:
        """Leading blocks of a chain that can be loaded. The prompt's end, for the agent, is that of their load."""
        if not self.client.is_open:
            return 0
        if len(chain.keys) > KEYS_MAX:
            chain = Chain(chain.keys[:KEYS_MAX], chain.group, chain.shard, chain.shards)
        ticket, found = self.client.lookup(chain, prompt_tokens=prompt_tokens, deadline=deadline)
        hits = found.result().hit_blocks
        self._held.hold(ticket, chain, hits)
        return hits

    def save(self, chain: Chain, first: int, payloads: Sequence[Sequence[Piece]]) -> list[bool]:
        """Offers payloads for the blocks from ``first`` on; which of them are kept. All are equally long."""
        kept = [True] * len(payloads)
        for part, group in self._parts(payloads, chain.group):
            for index, is_kept in enumerate(self._save_part(_in_group(chain, group), first, part)):
                kept[index] = kept[index] and is_kept
        return kept

    def load(self, chain: Chain, first: int, payloads: Sequence[Sequence[Piece]]) -> int:
        """Brings the blocks from ``first`` on to where the payloads lie; how many leading ones came."""
        count = len(payloads)
        ticket = self._held.claim(_up_to(chain, first + count)) if payloads else 0
        try:
            for part, group in self._parts(payloads, chain.group):
                # The look-up asked for the first parts, which stand for all.
                request = ticket if group == chain.group else 0
                count = min(count, self._load_part(_in_group(chain, group), first, part[:count], request))
        finally:
            self._held.loaded(ticket, first + count, is_whole=count == len(payloads))
        return count

    def close(self, timeout: float = 5.0) -> None:
        """Ends the connection, and gives memory back that nobody touches any more."""
        self._held.close()
        if self.client.close(timeout):
            with contextlib.suppress(BufferError):
                if self._staging is not None:
                    self._staging.close()
                if self._pad is not None:
                    self._pad[1].close()

    # ---- inside

    def _parts(self, payloads: Sequence[Sequence[Piece]], group: int) -> list[tuple[list[list[Piece]], int]]:
        """Payloads cut into blocks: for each part, its pieces of every payload and the group that it travels in."""
        size = sum(length for _, length in payloads[0]) if payloads else 0
        count = self.parts_of(size)
        if count == 1:
            return [([list(payload) for payload in payloads], group)]
        cut = [_cut(payload, self.block_bytes) for payload in payloads]
        # Parts of a payload are groups of their own: 4,096 groups apart, so that they meet no other group.
        return [([pieces[part] for pieces in cut], group + part * 4096) for part in range(count)]

    def _slices(self, pieces: Sequence[Piece]) -> list[tuple[int, int, int]] | None:
        slices = []
        size = 0
        for address, length in pieces:
            for shared in self._shared:
                inside = address - shared.address
                if inside >= 0 and inside + length <= shared.length:
                    slices.append((shared.region, shared.offset + inside, length))
                    break
            else:
                return None
            size += length
        if size < self.block_bytes:
            slices.append((self._padding(), 0, self.block_bytes - size))
        return slices

    def _padding(self) -> int:
        with self._lock:
            if self._pad is None:
                memory = SharedMemory(self.block_bytes, "holdfast-padding")
                self._pad = (self.client.add_region(memory.fd, memory.length), memory)
            return self._pad[0]

    def _staged(self) -> StagingRegion:
        with self._lock:
            if self._staging is None:
                staging = StagingRegion(self.block_bytes, self._staging_slots)
                staging.region = self.client.add_region(staging.memory.fd, staging.memory.length)
                self._staging = staging
            return self._staging

    def _places(self, payloads: Sequence[Sequence[Piece]]) -> Places | None:
        flat: list[tuple[int, int, int]] = []
        segments = 0
        for pieces in payloads:
            slices = self._slices(pieces)
            if slices is None or len(slices) > SEGMENTS_MAX or (segments and len(slices) != segments):
                return None
            segments = len(slices)
            flat += slices
        return Places.of(flat, segments) if flat and len(flat) <= SLICES_MAX else None

    def _save_part(self, chain: Chain, first: int, payloads: Sequence[Sequence[Piece]]) -> list[bool]:
        chain = _up_to(chain, first + len(payloads))
        if len(chain.keys) > KEYS_MAX or not self.client.is_open:
            return [False] * len(payloads)
        places = self._places(payloads)
        if places is not None:
            saved = self.client.save(chain, first, places).result()
            self.bytes_shared += saved.size
            return [saved.is_kept(index) for index in range(len(payloads))]
        kept: list[bool] = []
        staging = self._staged()
        deadline = self.client.settings.save_deadline
        while len(kept) < len(payloads):
            begun = len(kept)
            slots = self._acquire(staging, len(payloads) - begun, deadline)
            for slot, pieces in zip(slots, payloads[begun : begun + len(slots)], strict=True):
                _gather(staging.bytes_of(slot), pieces)
            end = first + begun + len(slots)
            result: Saved | None = None
            if slots:
                job = self.client.save(_up_to(chain, end), first + begun, staging.places(slots))
                result = self._end_of(job, staging, slots, deadline)
            if result is None:
                return kept + [False] * (len(payloads) - begun)
            kept += [result.is_kept(index) for index in range(len(slots))]
            self.bytes_copied += result.size
            self._release(staging, slots)
        return kept

    def _load_part(self, chain: Chain, first: int, payloads: Sequence[Sequence[Piece]], request: int) -> int:
        chain = _up_to(chain, first + len(payloads))
        if not payloads or len(chain.keys) > KEYS_MAX or not self.client.is_open:
            return 0
        places = self._places(payloads)
        if places is not None:
            loaded = self.client.load(chain, first, places, request=request).result()
            self.bytes_shared += loaded.size
            return loaded.end - loaded.first if loaded.first == first else 0
        done = 0
        staging = self._staged()
        deadline = self.client.settings.load_deadline
        while done < len(payloads):
            slots = self._acquire(staging, len(payloads) - done, deadline)
            result: Loaded | None = None
            if slots:
                end = first + done + len(slots)
                job = self.client.load(_up_to(chain, end), first + done, staging.places(slots), request=request)
                result = self._end_of(job, staging, slots, deadline)
            if result is None:
                break
            came = result.end - result.first if result.first == first + done else 0
            for slot, pieces in zip(slots[:came], payloads[done : done + came], strict=True):
                _scatter(staging.bytes_of(slot), pieces)
            self.bytes_copied += result.size
            self._release(staging, slots)
            done += came
            if came < len(slots):
                break
        return done

    def _acquire(self, staging: StagingRegion, count: int, limit: float) -> list[int]:
        """As many slots as there are, up to ``count``; waits for one, at most ``limit`` seconds: then none."""
        until = time.monotonic() + limit
        with self._staging_free:
            while True:
                wanted = min(count, staging.free)
                slots = staging.acquire(wanted) if wanted else None
                if slots is not None:
                    return slots
                left = until - time.monotonic()
                if left <= 0:
                    return []
                self._staging_free.wait(left)

    def _end_of(
        self, job: Future[_Result], staging: StagingRegion, slots: list[int], limit: float
    ) -> _Result | None:
        """What a job came to; None: it did not end in its time, and its slots come back when it does."""
        try:
            return job.result(limit + _CANCEL_SECONDS)
        except FutureTimeoutError:
            job.add_done_callback(lambda _: self._release(staging, slots))
            return None

    def _release(self, staging: StagingRegion, slots: list[int]) -> None:
        with self._staging_free:
            staging.release(slots)
            self._staging_free.notify_all()


def shared_mapping(address: int, length: int) -> tuple[int, int] | None:
    """The file behind memory of this process, as (descriptor, offset), if it is mapped shared and can be opened."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            start, end = (int(text, 16) for text in fields[0].split("-"))
            if not start <= address < end:
                continue
            inode = int(fields[4])
            if end - address < length or fields[1][3] != "s" or inode == 0:
                return None
            major, minor = (int(text, 16) for text in fields[3].split(":"))
            fd = _open(os.makedev(major, minor), inode, fields[5].strip() if len(fields) > 5 else "")
            return None if fd is None else (fd, int(fields[2], 16) + address - start)
    return None


def _open(device: int, inode: int, path: str) -> int | None:
    def is_it(fd: int) -> bool:
        status = os.fstat(fd)
        return (status.st_dev, status.st_ino) == (device, inode)

    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if is_it(fd):
            return fd
        os.close(fd)
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if is_it(int(name)):
                return os.dup(int(name))
    return None


def _up_to(chain: Chain, end: int) -> Chain:
    return Chain(chain.keys[:end], chain.group, chain.shard, chain.shards)


def _in_group(chain: Chain, group: int) -> Chain:
    return chain if group == chain.group else Chain(chain.keys, group, chain.shard, chain.shards)


def _cut(pieces: Sequence[Piece], size: int) -> list[list[Piece]]:
    """Pieces regrouped into runs of ``size`` bytes, the last one shorter."""
    runs: list[list[Piece]] = [[]]
    room = size
    for address, length in pieces:
        while length:
            if room == 0:
                runs.append([])
                room = size
            taken = min(room, length)
            runs[-1].append((address, taken))
            address, length, room = address + taken, length - taken, room - taken
    return runs


def _gather(slot: memoryview, pieces: Sequence[Piece]) -> None:
    into = ctypes.addressof(ctypes.c_char.from_buffer(slot))
    at = 0
    for address, length in pieces:
        ctypes.memmove(into + at, address, length)
        at += length
    if at < len(slot):
        ctypes.memset(into + at, 0, len(slot) - at)


def _scatter(slot: memoryview, pieces: Sequence[Piece]) -> None:
    source = ctypes.addressof(ctypes.c_char.from_buffer(slot))
    for address, length in pieces:
        ctypes.memmove(address, source, length)
        source += length
