"""What LMCache's two plug-ins have in common: the client, the memory between LMCache's buffers and the agent, two threads.

One thread begins jobs and may wait for slots; the other ends them. Both copy without the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..arena import Lease, Reservation
from ..client import DEFAULT_SOCKET, Client, Settings
from ..mover import shared_mapping
from ..protocol import Chain, Loaded, Ownership, Places, Saved
from ..regions import StagingRegion
from .layout import Layout, namespace_fields

if TYPE_CHECKING:
    from lmcache.v1.distributed.internal_api import L1MemoryDesc
    from lmcache.v1.memory_management import MemoryObj

_log = logging.getLogger("holdfast_kv.lmcache")
#: Bytes of a job, as many as are copied before the agent starts on them: few enough for its checksums to keep up with our
#: copies, and for it to have the slots.
_JOB_BYTES: Final = 16 << 20
#: A name that no other process has, the same one's next life included.
_PROCESS: Final = os.urandom(16).hex()


@dataclass(slots=True)
class _Slots:
    """Places that the agent may use for a job; ``staged`` are the slots to give back."""

    places: Places
    staged: list[int]


class Link:
    """The client, the memory, and the threads that copy.

    Where LMCache's own memory is a shared mapping of a file, the agent maps that and copies itself. Other objects are copied
    once, to and from slots of the agent's arena; where there is no slot, and with ``hand_over`` false, twice: through a
    staging region.
    """

    def __init__(
        self, params: dict[str, Any], block_bytes: int, layout: Layout, staging_bytes: int, l1: L1MemoryDesc | None = None
    ) -> None:
        self.block_bytes = block_bytes
        #: That of the objects which were seen first.
        self.layout = layout
        self._params = params
        self._is_warned = False
        #: Blocks of a job.
        self.piece = max(1, min(512, _JOB_BYTES // block_bytes))
        #: Blocks that were written, and read, in the agent's arena.
        self.written_in_place = self.read_in_place = 0
        fields = namespace_fields(params, layout, block_bytes)
        self.block_tokens = int(fields["block_tokens"])
        shared = _shared_arena(l1) if l1 is not None and params.get("in_place", True) else None
        hands_over = shared is None and bool(params.get("hand_over", True))
        self.client = Client(
            str(params.get("socket", DEFAULT_SOCKET)),
            kind="lmcache",
            store_namespace=str(params.get("store_namespace", "default")),
            fields=fields,
            block_bytes=block_bytes,
            ownership=Ownership.HOST if hands_over else Ownership.ENGINE,
            arena="writing" if hands_over else None,
            client="holdfast-kv lmcache",
            settings=Settings(lookup_deadline=float(params.get("lookup_deadline", 0.2))),
        )
        self.staging: StagingRegion | None = None
        self._base = 0
        if shared is not None and l1 is not None:
            descriptor, offset = shared
            try:
                self._region = self.client.add_region(descriptor, os.fstat(descriptor).st_size)
            finally:
                os.close(descriptor)
            self._base = l1.ptr - offset
        else:
            slot = (block_bytes + 4095) // 4096 * 4096
            self.staging = StagingRegion(slot, max(2 * self.piece, staging_bytes // slot))
            self._region = self.client.add_region(self.staging.memory.fd, self.staging.memory.length)
            self._base = ctypes.addressof(ctypes.c_char.from_buffer(self.staging.memory.view))
        #: Slots that were asked for before they are needed.
        self._ahead: Future[Reservation | None] | None = None
        self._room = threading.Condition()
        # One thread begins jobs and may wait for slots; the other ends them and gives slots back.
        self._begins: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ends: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=_work, args=(orders,), name=f"holdfast-{name}", daemon=True)
            for name, orders in (("begin", self._begins), ("end", self._ends))
        ]
        for thread in self._threads:
            thread.start()
        # The first stores come right behind the first connection: they wait for it, once, on the thread that begins them.
        self.begin(lambda: _log.debug("attached: %s", self.client.wait_open(float(params.get("attach_seconds", 2.0)))))

    def takes(self, objects: Sequence[MemoryObj]) -> bool:
        """Whether these objects have the size that the agent was told."""
        if all(thing.get_size() == self.block_bytes for thing in objects):
            return True
        _log.warning("objects of another size than %d bytes are not kept: one agent serves one layout", self.block_bytes)
        return False

    def namespace(self, layout: Layout, **more: str) -> dict[str, str]:
        """The namespace of objects with a layout. Where their dtypes leave open what the bytes are and nobody said it, it is
        this process's alone."""
        fields = namespace_fields(self._params, layout, self.block_bytes) | more
        if not layout.is_opaque or self._params.get("kv_dtype"):
            return fields
        if not self._is_warned:
            self._is_warned = True
            _log.warning(
                "LMCache hands KV over as %s, which several dtypes are: what is kept is of use to this process alone; "
                "give kv_dtype, as fp8_e4m3", fields["kv_dtype"],
            )  # fmt: skip
        return fields | {"process": _PROCESS}

    # ---- saves

    def save(self, chain: Chain, objects: Sequence[MemoryObj], deadline: float, following: int = 0) -> Future[Saved]:
        """Offers objects as the last blocks of a chain. They may change when this returns; those in memory that the agent
        maps when the future ends. ``following`` objects will be offered next. For the thread that begins jobs."""
        saved = self._write(chain, objects, deadline, following)
        if saved is not None:
            return saved
        slots = self._lend(objects, deadline, fills=True)
        if slots is None:
            nothing: Future[Saved] = Future()
            nothing.set_result(Saved(0, len(objects)))
            return nothing
        saved = self.client.save(chain, len(chain.keys) - len(objects), slots.places, deadline=deadline)
        saved.add_done_callback(lambda _: self._give_back(slots))
        return saved

    def _write(
        self, chain: Chain, objects: Sequence[MemoryObj], deadline: float, following: int
    ) -> Future[Saved] | None:
        """Writes objects into slots of the agent's arena: the one copy there is. None: there are no slots for them."""
        if self.client.arena is None:
            return None
        reservation = self._reserved(len(objects), deadline)
        if reservation is None:
            return None
        if following:
            # The agent's answer is on its way while these are copied.
            self._ahead = self.client.reserve(following, deadline=deadline)
        for place, thing in enumerate(objects):
            into = ctypes.addressof(ctypes.c_char.from_buffer(reservation[place]))
            ctypes.memmove(into, int(thing.data_ptr), self.block_bytes)
        self.written_in_place += len(objects)
        return self.client.commit(reservation.loan, reservation.slots, chain, deadline=deadline)

    def _reserved(self, count: int, deadline: float) -> Reservation | None:
        """That many slots, those that were asked for ahead if they are as many; None: the agent has no room for them."""
        ahead, self._ahead = self._ahead, None
        reservation = _whole(ahead, count) if ahead is not None else None
        return reservation or _whole(self.client.reserve(count, deadline=deadline), count)

    # ---- loads

    def load(
        self, chain: Chain, first: int, objects: Sequence[MemoryObj], deadline: float, request: int = 0
    ) -> Future[int]:
        """Brings the blocks from ``first`` on into objects; how many leading ones came, when their last byte is there. Does
        not wait. ``request`` is the look-up that found them, if that is open."""
        came: Future[int] = Future()
        if self.client.arena is None:
            self.begin(lambda: self._load_staged(chain, first, objects, deadline, request, came, 0))
            return came

        def taken(lease: Future[Lease | None]) -> None:
            self.end(lambda: self._load_leased(chain, first, objects, deadline, request, came, lease.result()))

        lent = self.client.take(chain, first, len(objects), request=request, deadline=deadline)
        lent.add_done_callback(taken)
        return came

    def _load_leased(
        self, chain: Chain, first: int, objects: Sequence[MemoryObj], deadline: float, request: int, came: Future[int],
        lease: Lease | None,
    ) -> None:  # fmt: skip
        """Copies blocks out of the agent's arena; what was not lent is staged. LMCache uses its buffers when it likes, and
        nobody could look at a lease's word behind it: so the copy ends before the lease does."""
        done = 0
        if lease is not None and lease.taken.first == first:
            slot_bytes = lease.arena.shape.slot_bytes
            for (slot, _), thing in zip(lease.taken.blocks, objects, strict=False):
                ctypes.memmove(int(thing.data_ptr), lease.arena.address + slot * slot_bytes, self.block_bytes)
            done = len(lease) if lease.settle() else 0
            self.read_in_place += done
        elif lease is not None:
            lease.release()
        if done == len(objects):
            came.set_result(done)
        else:
            self.begin(lambda: self._load_staged(chain, first, objects, deadline, request, came, done))

    def _load_staged(
        self, chain: Chain, first: int, objects: Sequence[MemoryObj], deadline: float, request: int, came: Future[int],
        done: int,
    ) -> None:  # fmt: skip
        """Has the agent copy what is not there yet. On the thread that begins jobs, which may wait for slots."""
        rest = objects[done:]
        slots = self._lend(rest, deadline, fills=False)
        if slots is None:
            came.set_result(done)
            return

        def loaded(future: Future[Loaded]) -> None:
            result = future.result()
            count = max(0, result.end - result.first) if result.first == first + done else 0

            def bring() -> None:
                self._bring(slots, rest[:count])
                self._give_back(slots)
                came.set_result(done + count)

            self.end(bring)

        job = self.client.load(chain, first + done, slots.places, request=request, deadline=deadline)
        job.add_done_callback(loaded)

    # ---- slots

    def _lend(self, objects: Sequence[MemoryObj], deadline: float, *, fills: bool) -> _Slots | None:
        """Places for objects, with their bytes when ``fills``. None: no slot came free in time."""
        if self.staging is None:
            return _Slots(Places.of([(self._region, int(o.data_ptr) - self._base, self.block_bytes) for o in objects]), [])
        until = time.monotonic() + deadline
        with self._room:
            while (slots := self.staging.acquire(len(objects))) is None:
                left = until - time.monotonic()
                if left <= 0 or not self._room.wait(left):
                    return None
        size = self.staging.slot_bytes
        if fills:
            for slot, thing in zip(slots, objects, strict=True):
                ctypes.memmove(self._base + slot * size, int(thing.data_ptr), self.block_bytes)
        return _Slots(Places.of([(self._region, slot * size, self.block_bytes) for slot in slots]), slots)

    def _bring(self, slots: _Slots, objects: Sequence[MemoryObj]) -> None:
        """Copies what came into staging slots to LMCache's buffers."""
        if self.staging is None:
            return
        for slot, thing in zip(slots.staged, objects, strict=False):
            ctypes.memmove(int(thing.data_ptr), self._base + slot * self.staging.slot_bytes, self.block_bytes)

    def _give_back(self, slots: _Slots) -> None:
        """Nothing touches the slots any more."""
        if self.staging is not None and slots.staged:
            with self._room:
                self.staging.release(slots.staged)
                self._room.notify_all()

    # ---- threads

    def begin(self, order: Callable[[], None]) -> None:
        """Has a job begun."""
        self._begins.put(order)

    def end(self, order: Callable[[], None]) -> None:
        """Has a job ended."""
        self._ends.put(order)

    def close(self) -> None:
        """Waits for what is under way and leaves."""
        self.client.close(timeout=10.0)
        self._begins.put(None)
        self._ends.put(None)
        for thread in self._threads:
            thread.join(10.0)


def _shared_arena(l1: L1MemoryDesc) -> tuple[int, int] | None:
    """The file behind the server's L1 arena, and where in it the arena begins; None: it is no shared mapping of one."""
    found = shared_mapping(l1.ptr, l1.size)
    if found is None:
        _log.info("the server's L1 memory is not shared: its objects are copied here; --no-l1-use-lazy shares it")
    return found


def _whole(answer: Future[Reservation | None], count: int) -> Reservation | None:
    """A reservation of so many slots that is in force; any other is given back."""
    reservation = answer.result()
    if reservation is not None and (len(reservation) != count or not reservation.in_force):
        reservation.release()
        return None
    return reservation


def _work(orders: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (order := orders.get()) is not None:
        try:
            order()
        except Exception:
            _log.exception("a copy failed")

