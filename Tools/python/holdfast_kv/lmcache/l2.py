"""Holdfast as an L2 adapter of LMCache's multi-process server:

    lmcache server … --l2-adapter '{"type": "plugin", "module_path": "holdfast_kv.lmcache.l2", "class_name": "HoldfastL2",
                                    "adapter_params": {"socket": "/run/holdfast/agent.sock"}}'

Objects are copied through slots that this adapter shares with the agent, on a thread of its own, without the interpreter's
lock. Where the server's L1 arena is a named shared memory (``--shm-name NAME``; then ``"shm_name": "NAME"`` here), the
agent maps the arena itself and nothing is copied. Without an agent look-ups find nothing and stores fail at once.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lmcache.lmcache_native import Bitmap
from lmcache.v1.distributed.internal_api import L2StoreResult
from lmcache.v1.distributed.l2_adapters.base import L2AdapterInterface

from ..client import DEFAULT_SOCKET, Client, Settings
from ..namespace import REQUIRED_FIELDS, EngineKeys, namespace_digest
from ..protocol import Chain, Found, Loaded, Ownership, Places, Saved
from ..regions import StagingRegion

if TYPE_CHECKING:
    from lmcache.v1.distributed.api import MemoryLayoutDesc, ObjectKey
    from lmcache.v1.distributed.internal_api import L1MemoryDesc
    from lmcache.v1.memory_management import MemoryObj

_log = logging.getLogger("holdfast_kv.lmcache")
#: Blocks of a job: as many as are copied before the agent starts on them.
_PIECE: Final = 16


@dataclass(slots=True)
class _Group:
    """Keys of one task that share everything but their place in the chain, with their indexes in the task."""

    chain: Chain
    members: list[int]


@dataclass(slots=True)
class _Task:
    """A task under way: what came through, and how many of its jobs are out."""

    count: int
    open: int = 0
    done: set[int] = field(default_factory=set)
    size: int = 0


class HoldfastL2(L2AdapterInterface):
    """The agent as LMCache's L2. Called from several controller threads."""

    def __init__(self, params: dict[str, Any], l1_memory_desc: L1MemoryDesc | None = None) -> None:
        super().__init__(max_capacity_bytes=0)
        self._params = params
        self._l1 = l1_memory_desc
        self._deadline = float(params.get("transfer_deadline", 30.0))
        self._staging_bytes = int(params.get("staging_bytes", 256 << 20))
        self._events = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(3)]
        self._lock = threading.Lock()
        self._number = 0
        self._tasks: dict[int, _Task] = {}
        self._stored: dict[int, L2StoreResult] = {}
        self._found: dict[int, Bitmap] = {}
        self._loaded: dict[int, Bitmap] = {}
        #: Look-ups that hold their blocks until they are unlocked, by their first key.
        self._held: dict[ObjectKey, list[int]] = {}
        self._keys: dict[tuple[str, int, str], EngineKeys] = {}
        self._link: _Link | None = None
        self._is_closed = False

    # ---- where ends are told

    def get_store_event_fd(self) -> int:
        """Readable when a store has ended."""
        return self._events[0]

    def get_lookup_and_lock_event_fd(self) -> int:
        """Readable when a look-up was answered."""
        return self._events[1]

    def get_load_event_fd(self) -> int:
        """Readable when a load has ended."""
        return self._events[2]

    # ---- stores

    def submit_store_task(self, keys: list[ObjectKey], objects: list[MemoryObj]) -> int:
        """Offers objects; their buffers stay LMCache's, unchanged until the task has ended."""
        number, task = self._begin(len(keys))
        link = self._attach(objects[0].get_size() if objects else 0)

        def end() -> None:
            self._stored[number] = L2StoreResult(bool(task.done) or task.count == 0, task.size)
            if task.done:
                kept = sorted(task.done)
                self._notify_keys_stored([keys[at] for at in kept], [objects[at].get_size() for at in kept])

        groups = self._groups(keys) if link and link.takes(objects) else []
        self._run(number, task, groups, 0, end, link, objects, self._save)
        return number

    def _save(
        self, link: _Link, chain: Chain, first: int, members: list[int], objects: Sequence[MemoryObj], then: _Then
    ) -> None:
        slots = link.lend([objects[at] for at in members], fills=True, deadline=time.monotonic() + self._deadline)
        if slots is None:
            return then(set(), 0)

        def saved(future: Future[Saved]) -> None:
            link.give_back(slots)
            result = future.result()
            done = {member for at, member in enumerate(members) if result.is_kept(at)}
            then(done, len(done) * link.block_bytes)

        cut = Chain(chain.keys[: first + len(members)], chain.group, chain.shard, chain.shards)
        link.client.save(cut, first, slots.places, deadline=self._deadline).add_done_callback(saved)

    def pop_completed_store_tasks(self) -> dict[int, L2StoreResult]:
        """The stores that have ended since the last call."""
        with self._lock:
            ended, self._stored = self._stored, {}
        return ended

    # ---- look-ups

    def submit_lookup_and_lock_task(self, keys: list[ObjectKey], group_layout_descs: dict[int, MemoryLayoutDesc]) -> int:
        """Asks which objects can be loaded. What is found stays looked after until it is unlocked; a load may still miss."""
        number, task = self._begin(len(keys))
        link = self._attach(_layout_bytes(group_layout_descs))
        groups = self._groups(keys) if link else []

        def end() -> None:
            self._found[number] = _bitmap(task)

        with self._lock:
            task.open = len(groups)
        for group in groups:
            assert link is not None
            ticket, answer = link.client.lookup(group.chain, prompt_tokens=len(group.chain.keys) * link.block_tokens)
            with self._lock:
                self._held.setdefault(keys[group.members[0]], []).append(ticket)

            def found(future: Future[Found], members: list[int] = group.members) -> None:
                hits = future.result().hit_blocks
                self._end_part(task, set(members[:hits]), 0, 1, end)

            answer.add_done_callback(found)
        if not groups:
            self._end_part(task, set(), 0, 1, end)
        return number

    def query_lookup_and_lock_result(self, task_id: int) -> Bitmap | None:
        """The answer, once."""
        with self._lock:
            return self._found.pop(task_id, None)

    def submit_unlock(self, keys: list[ObjectKey]) -> None:
        """The objects need not be looked after any more."""
        with self._lock:
            tickets = [ticket for key in keys for ticket in self._held.pop(key, ())]
        if self._link is not None:
            for ticket in tickets:
                self._link.client.finished(ticket)

    # ---- loads

    def submit_load_task(self, keys: list[ObjectKey], objects: list[MemoryObj]) -> int:
        """Fills LMCache's buffers, as far as the agent has the objects."""
        number, task = self._begin(len(keys))
        link = self._attach(objects[0].get_size() if objects else 0)

        def end() -> None:
            self._loaded[number] = _bitmap(task)
            if task.done:
                self._notify_keys_accessed([keys[at] for at in sorted(task.done)])

        groups = self._groups(keys) if link and link.takes(objects) else []
        self._run(number, task, groups, 2, end, link, objects, self._load)
        return number

    def _load(
        self, link: _Link, chain: Chain, first: int, members: list[int], objects: Sequence[MemoryObj], then: _Then
    ) -> None:
        wanted = [objects[at] for at in members]
        slots = link.lend(wanted, fills=False, deadline=time.monotonic() + self._deadline)
        if slots is None:
            return then(set(), 0)
        cut = Chain(chain.keys[: first + len(members)], chain.group, chain.shard, chain.shards)

        def loaded(future: Future[Loaded]) -> None:
            result = future.result()
            count = max(0, result.end - first) if result.first == first else 0

            def bring() -> None:
                link.bring(slots, wanted[:count])
                link.give_back(slots)
                then(set(members[:count]), count * link.block_bytes)

            link.end(bring)

        link.client.load(cut, first, slots.places, deadline=self._deadline).add_done_callback(loaded)

    def query_load_result(self, task_id: int) -> Bitmap | None:
        """The result, once."""
        with self._lock:
            return self._loaded.pop(task_id, None)

    # ---- the rest

    def close(self) -> None:
        """Leaves the agent, after the last byte."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._link is not None:
            self._link.close()
        for event in self._events:
            os.close(event)

    def report_status(self) -> dict[str, Any]:
        """Whether the agent is there, and what it says of itself."""
        link = self._link
        if link is None:
            return {"is_healthy": True, "agent": "not asked yet: the size of objects is not known"}
        refusal = link.client.refusal
        return {
            "is_healthy": True,
            "agent": "attached" if link.client.is_open else "away",
            "refusal": str(refusal) if refusal else "",
            "staging_free": link.staging.free if link.staging else -1,
        }

    # ---- inside

    def _begin(self, count: int) -> tuple[int, _Task]:
        with self._lock:
            self._number += 1
            task = self._tasks[self._number] = _Task(count)
            return self._number, task

    def _attach(self, block_bytes: int) -> _Link | None:
        """The link to the agent, made when the size of objects is first known."""
        with self._lock:
            if self._link is None and block_bytes > 0 and not self._is_closed:
                self._link = _Link(self._params, block_bytes, self._staging_bytes, self._l1)
            return self._link

    def _run(
        self,
        number: int,
        task: _Task,
        groups: list[_Group],
        event: int,
        end: Callable[[], None],
        link: _Link | None,
        objects: Sequence[MemoryObj],
        move: Callable[..., None],
    ) -> None:
        """Moves a task's objects in pieces, one job of the agent each."""
        pieces = [
            (group, first, group.members[first : first + _PIECE])
            for group in groups
            for first in range(0, len(group.members), _PIECE)
        ]
        task.open = max(1, len(pieces))

        def then(done: set[int], size: int) -> None:
            self._end_part(task, done, size, event, end)

        if link is None or not pieces:
            return then(set(), 0)
        for group, first, members in pieces:
            link.begin(functools.partial(move, link, group.chain, first, members, objects, then))

    def _end_part(self, task: _Task, done: set[int], size: int, event: int, end: Callable[[], None]) -> None:
        with self._lock:
            task.done |= done
            task.size += size
            task.open -= 1
            if task.open > 0:
                return
        end()
        if not self._is_closed:
            os.eventfd_write(self._events[event], 1)

    def _groups(self, keys: Sequence[ObjectKey]) -> list[_Group]:
        groups: dict[tuple[str, int, str, int], list[int]] = {}
        for at, key in enumerate(keys):
            groups.setdefault((key.model_name, key.kv_rank, key.cache_salt, key.object_group_id), []).append(at)
        found: list[_Group] = []
        for (model, rank, salt, group), members in groups.items():
            make = self._key_maker(model, rank, salt)
            chain = Chain(tuple(make(keys[at].chunk_hash) for at in members), group)
            found.append(_Group(chain, members))
        return found

    def _key_maker(self, model: str, rank: int, salt: str) -> EngineKeys:
        name = (model, rank, salt)
        maker = self._keys.get(name)
        if maker is None:
            fields = _fields(self._params, self._link.block_bytes if self._link else 0)
            fields |= {"model": model, "lmcache_kv_rank": f"{rank:08x}", "tenant_salt": salt}
            maker = self._keys[name] = EngineKeys(namespace_digest(fields))
        return maker


_Then = Callable[[set[int], int], None]


@dataclass(slots=True)
class _Slots:
    """Places that the agent may use for a job; ``staged`` are the slots to give back."""

    places: Places
    staged: list[int]


class _Link:
    """The client, the shared memory, and the thread that copies."""

    def __init__(
        self, params: dict[str, Any], block_bytes: int, staging_bytes: int, l1: L1MemoryDesc | None, *,
        hands_over: bool = False,
    ) -> None:  # fmt: skip
        self.block_bytes = block_bytes
        #: Blocks that were written, and read, in the agent's arena.
        self.written_in_place = self.read_in_place = 0
        self.block_tokens = int(params.get("chunk_tokens", 256))
        self.client = Client(
            str(params.get("socket", DEFAULT_SOCKET)),
            kind="lmcache",
            store_namespace=str(params.get("store_namespace", "default")),
            fields=_fields(params, block_bytes),
            block_bytes=block_bytes,
            ownership=Ownership.HOST if hands_over else Ownership.ENGINE,
            arena="writing" if hands_over else None,
            client="holdfast-kv lmcache",
            settings=Settings(lookup_deadline=float(params.get("lookup_deadline", 0.2))),
        )
        self.staging: StagingRegion | None = None
        self._arena = 0
        shm = params.get("shm_name")
        if shm and l1 is not None:
            descriptor = os.open(f"/dev/shm/{str(shm).lstrip('/')}", os.O_RDWR | os.O_CLOEXEC)
            try:
                self._region = self.client.add_region(descriptor, os.fstat(descriptor).st_size)
            finally:
                os.close(descriptor)
            self._arena = l1.ptr
        else:
            slot = (block_bytes + 4095) // 4096 * 4096
            self.staging = StagingRegion(slot, max(2 * _PIECE, staging_bytes // slot))
            self._region = self.client.add_region(self.staging.memory.fd, self.staging.memory.length)
            self._base = ctypes.addressof(ctypes.c_char.from_buffer(self.staging.memory.view))
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

    def write(self, chain: Chain, objects: Sequence[MemoryObj], deadline: float) -> Future[Saved] | None:
        """Writes objects into slots of the agent's arena, as the last blocks of a chain: the one copy there is. None: there
        are no slots for them. For the thread that begins jobs."""
        reservation = self.client.reserve(len(objects), deadline=deadline).result()
        if reservation is None:
            return None
        if len(reservation) < len(objects) or not reservation.in_force:
            reservation.release()
            return None
        for place, thing in enumerate(objects):
            into = ctypes.addressof(ctypes.c_char.from_buffer(reservation[place]))
            ctypes.memmove(into, int(thing.data_ptr), self.block_bytes)
        self.written_in_place += len(objects)
        return self.client.commit(reservation.loan, reservation.slots, chain, deadline=deadline)

    def read(self, chain: Chain, first: int, objects: Sequence[MemoryObj], deadline: float) -> int:
        """Copies blocks out of the agent's arena; how many leading ones came. LMCache uses its buffers when it likes, and
        nobody could look at a lease's word behind it: so the copy ends before the lease does."""
        lease = self.client.take(chain, first, len(objects), deadline=deadline).result()
        if lease is None:
            return 0
        arena = lease.arena
        for (slot, _), thing in zip(lease.taken.blocks, objects, strict=False):
            ctypes.memmove(int(thing.data_ptr), arena.address + slot * arena.shape.slot_bytes, self.block_bytes)
        came = len(lease) if lease.in_force else 0
        lease.release()
        self.read_in_place += came
        return came

    def takes(self, objects: Sequence[MemoryObj]) -> bool:
        """Whether these objects have the size that the agent was told."""
        if all(thing.get_size() == self.block_bytes for thing in objects):
            return True
        _log.warning("objects of another size than %d bytes are not kept: one agent serves one layout", self.block_bytes)
        return False

    def lend(self, objects: Sequence[MemoryObj], *, fills: bool, deadline: float) -> _Slots | None:
        """Places for objects, with their bytes when ``fills``. None: no slot came free in time."""
        if self.staging is None:
            return _Slots(Places.of([(self._region, int(o.data_ptr) - self._arena, self.block_bytes) for o in objects]), [])
        with self._room:
            while (slots := self.staging.acquire(len(objects))) is None:
                left = deadline - time.monotonic()
                if left <= 0 or not self._room.wait(left):
                    return None
        size = self.staging.slot_bytes
        if fills:
            for slot, thing in zip(slots, objects, strict=True):
                ctypes.memmove(self._base + slot * size, int(thing.data_ptr), self.block_bytes)
        return _Slots(Places.of([(self._region, slot * size, self.block_bytes) for slot in slots]), slots)

    def bring(self, slots: _Slots, objects: Sequence[MemoryObj]) -> None:
        """Copies what came into staging slots to LMCache's buffers."""
        if self.staging is None:
            return
        for slot, thing in zip(slots.staged, objects, strict=False):
            ctypes.memmove(int(thing.data_ptr), self._base + slot * self.staging.slot_bytes, self.block_bytes)

    def give_back(self, slots: _Slots) -> None:
        """Nothing touches the slots any more."""
        if self.staging is not None and slots.staged:
            with self._room:
                self.staging.release(slots.staged)
                self._room.notify_all()

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


def _work(orders: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (order := orders.get()) is not None:
        try:
            order()
        except Exception:
            _log.exception("a copy failed")


def _fields(params: dict[str, Any], block_bytes: int) -> dict[str, str]:
    """The namespace of the server as a whole; each model, rank and salt has its own below it."""
    fields = dict.fromkeys(REQUIRED_FIELDS, "")
    fields |= {
        "block_tokens": str(int(params.get("chunk_tokens", 256))),
        "engine": "lmcache",
        "hash_scheme": str(params.get("hash_scheme", "lmcache")),
        "hash_seed": str(params.get("hash_seed", "")),
        "memory_order": str(params.get("memory_order", "")),
        "row_bytes": str(block_bytes),
    }
    return fields


def _layout_bytes(layouts: dict[int, MemoryLayoutDesc]) -> int:
    """Bytes of an object of the first group, 0 when nobody says."""
    for layout in layouts.values():
        return sum(int(shape.numel()) * dtype.itemsize for shape, dtype in zip(layout.shapes, layout.dtypes, strict=True))
    return 0


def _bitmap(task: _Task) -> Bitmap:
    bits = Bitmap(task.count)
    for at in task.done:
        bits.set(at)
    return bits
