"""Holdfast as an L2 adapter of LMCache's multi-process server:

    lmcache server … --l2-adapter '{"type": "plugin", "module_path": "holdfast_kv.lmcache.l2", "class_name": "HoldfastL2",
                                    "adapter_params": {"socket": "/run/holdfast/agent.sock"}}'

Where the server's L1 arena is shared memory, as it is with ``--no-l1-use-lazy``, the agent maps it and copies objects
itself (``"in_place": false`` keeps it from that). Otherwise they are copied once, between the server's buffers and the
agent's arena, on a thread of this adapter, without the interpreter's lock; with ``"hand_over": false``, or where the arena
has no slot for them, twice, through slots that it shares with the agent. Without an agent look-ups find nothing and stores
fail at once.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lmcache.lmcache_native import Bitmap
from lmcache.v1.distributed.internal_api import L2StoreResult
from lmcache.v1.distributed.l2_adapters.base import L2AdapterInterface

from ..namespace import EngineKeys, namespace_digest
from ..protocol import Chain, Found, Saved
from .layout import Described, Layout, described
from .link import Link

if TYPE_CHECKING:
    from lmcache.v1.distributed.api import MemoryLayoutDesc, ObjectKey
    from lmcache.v1.distributed.internal_api import L1MemoryDesc
    from lmcache.v1.memory_management import MemoryObj

_log = logging.getLogger("holdfast_kv.lmcache")


@dataclass(slots=True)
class _Group:
    """Keys of one task that share everything but their place in the chain, with their indexes in the task."""

    chain: Chain
    members: list[int]
    #: Of a load: the look-up that found them; 0: none is known.
    request: int = 0


@dataclass(slots=True)
class _Piece:
    """What of a group moves as one job of the agent: its members from place ``first`` of the chain on."""

    chain: Chain
    first: int
    members: list[int]
    request: int = 0
    #: How many the next piece of the task has.
    following: int = 0


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
        self._stored: dict[int, L2StoreResult] = {}
        self._found: dict[int, Bitmap] = {}
        self._loaded: dict[int, Bitmap] = {}
        #: Look-ups that hold their blocks until they are unlocked, by their first key.
        self._held: dict[ObjectKey, list[int]] = {}
        #: Those of them that no load was made for yet.
        self._unloaded: dict[ObjectKey, list[int]] = {}
        self._keys: dict[tuple[str, int, str, Layout], EngineKeys] = {}
        self._link: Link | None = None
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
        link = self._attach(_described(objects))

        def end() -> None:
            # Under the lock: whoever asks for results takes the table away.
            with self._lock:
                self._stored[number] = L2StoreResult(bool(task.done) or task.count == 0, task.size)
            if task.done:
                kept = sorted(task.done)
                self._notify_keys_stored([keys[at] for at in kept], [objects[at].get_size() for at in kept])

        groups = self._groups(link, keys, map(Layout.of_object, objects)) if link and link.takes(objects) else []
        self._run(number, task, groups, 0, end, link, objects, self._save)
        return number

    def _save(self, link: Link, piece: _Piece, objects: Sequence[MemoryObj], then: _Then) -> None:
        def saved(future: Future[Saved]) -> None:
            done = {member for at, member in enumerate(piece.members) if future.result().is_kept(at)}
            then(done, len(done) * link.block_bytes)

        offered = [objects[at] for at in piece.members]
        link.save(piece.chain, offered, self._deadline, piece.following).add_done_callback(saved)

    def pop_completed_store_tasks(self) -> dict[int, L2StoreResult]:
        """The stores that have ended since the last call."""
        with self._lock:
            ended, self._stored = self._stored, {}
        return ended

    # ---- look-ups

    def submit_lookup_and_lock_task(self, keys: list[ObjectKey], group_layout_descs: dict[int, MemoryLayoutDesc]) -> int:
        """Asks which objects can be loaded. What is found stays looked after until it is unlocked; a load may still miss."""
        number, task = self._begin(len(keys))
        said = described(group_layout_descs)
        link = self._attach(said[min(said)] if said else Described())
        groups: list[_Group] = []
        if link:
            # Of a group of which LMCache says nothing the first objects' layout is the guess: no load believes it.
            layouts = (said[key.object_group_id].layout if key.object_group_id in said else link.layout for key in keys)
            groups = self._groups(link, keys, layouts)

        def end() -> None:
            with self._lock:
                self._found[number] = _bitmap(task)

        with self._lock:
            task.open = len(groups)
        for place, group in enumerate(groups):
            assert link is not None
            # Ranks and groups of objects are parts of one prompt, whose tokens are counted once.
            tokens = 0 if place else len(group.chain.keys) * link.block_tokens
            ticket, answer = link.client.lookup(group.chain, prompt_tokens=tokens)
            with self._lock:
                self._held.setdefault(keys[group.members[0]], []).append(ticket)
                self._unloaded.setdefault(keys[group.members[0]], []).append(ticket)

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
            for key in keys:
                self._unloaded.pop(key, None)
        if self._link is not None:
            for ticket in tickets:
                self._link.client.finished(ticket)

    # ---- loads

    def submit_load_task(self, keys: list[ObjectKey], objects: list[MemoryObj]) -> int:
        """Fills LMCache's buffers, as far as the agent has the objects."""
        number, task = self._begin(len(keys))
        link = self._attach(_described(objects))

        def end() -> None:
            with self._lock:
                self._loaded[number] = _bitmap(task)
            if task.done:
                self._notify_keys_accessed([keys[at] for at in sorted(task.done)])

        groups = self._groups(link, keys, map(Layout.of_object, objects)) if link and link.takes(objects) else []
        with self._lock:
            for group in groups:
                tickets = self._unloaded.get(keys[group.members[0]])
                group.request = tickets.pop(0) if tickets else 0
        self._run(number, task, groups, 2, end, link, objects, self._load)
        return number

    def _load(self, link: Link, piece: _Piece, objects: Sequence[MemoryObj], then: _Then) -> None:
        def loaded(future: Future[int]) -> None:
            then(set(piece.members[: future.result()]), future.result() * link.block_bytes)

        wanted = [objects[at] for at in piece.members]
        link.load(piece.chain, piece.first, wanted, self._deadline, piece.request).add_done_callback(loaded)

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
            return self._number, _Task(count)

    def _attach(self, first: Described) -> Link | None:
        """The link to the agent, made when the size of objects is first known."""
        with self._lock:
            if self._link is None and first.size > 0 and not self._is_closed:
                self._link = Link(self._params, first.size, first.layout, self._staging_bytes, self._l1)
            return self._link

    def _run(
        self,
        number: int,
        task: _Task,
        groups: list[_Group],
        event: int,
        end: Callable[[], None],
        link: Link | None,
        objects: Sequence[MemoryObj],
        move: Callable[..., None],
    ) -> None:
        """Moves a task's objects in pieces, one job of the agent each."""
        step = link.piece if link else 1
        pieces = [
            _Piece(
                _up_to(group.chain, min(first + step, len(group.members))),
                first,
                group.members[first : first + step],
                group.request,
            )
            for group in groups
            for first in range(0, len(group.members), step)
        ]
        for piece, following in pairwise(pieces):
            piece.following = len(following.members)
        task.open = max(1, len(pieces))

        def then(done: set[int], size: int) -> None:
            self._end_part(task, done, size, event, end)

        if link is None or not pieces:
            return then(set(), 0)
        for piece in pieces:
            link.begin(functools.partial(move, link, piece, objects, then))

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

    def _groups(self, link: Link, keys: Sequence[ObjectKey], layouts: Iterable[Layout]) -> list[_Group]:
        groups: dict[tuple[str, int, str, int, Layout], list[int]] = {}
        for at, (key, layout) in enumerate(zip(keys, layouts, strict=True)):
            groups.setdefault((key.model_name, key.kv_rank, key.cache_salt, key.object_group_id, layout), []).append(at)
        found: list[_Group] = []
        for (model, rank, salt, group, layout), members in groups.items():
            make = self._key_maker(link, model, rank, salt, layout)
            chain = Chain(tuple(make(keys[at].chunk_hash) for at in members), group)
            found.append(_Group(chain, members))
        return found

    def _key_maker(self, link: Link, model: str, rank: int, salt: str, layout: Layout) -> EngineKeys:
        name = (model, rank, salt, layout)
        maker = self._keys.get(name)
        if maker is None:
            fields = link.namespace(layout, model=model, lmcache_kv_rank=f"{rank:08x}", tenant_salt=salt)
            maker = self._keys[name] = EngineKeys(namespace_digest(fields))
        return maker


_Then = Callable[[set[int], int], None]


def _up_to(chain: Chain, end: int) -> Chain:
    return Chain(chain.keys[:end], chain.group, chain.shard, chain.shards)


def _described(objects: Sequence[MemoryObj]) -> Described:
    return Described(Layout.of_object(objects[0]), objects[0].get_size()) if objects else Described()


def _bitmap(task: _Task) -> Bitmap:
    bits = Bitmap(task.count)
    for at in task.done:
        bits.set(at)
    return bits
