"""Holdfast as a storage plug-in of LMCache inside an engine (``LMCacheConnectorV1``):

    storage_plugins: [holdfast]
    extra_config:
      storage_plugin.holdfast.module_path: holdfast_kv.lmcache.storage
      storage_plugin.holdfast.class_name: HoldfastStorage
      holdfast.socket: /run/holdfast/agent.sock

A chunk is copied once each way, between LMCache's buffer and the slot of the agent's node memory that it lives in; when no
slot can be had, or with ``holdfast.hand_over: false``, twice, through slots that the agent copies from and to. LMCache uses
a buffer that it was given when it likes and for as long as it likes, so that its buffers cannot be the agent's slots
themselves. Only whole chunks are kept. Without an agent nothing is found.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from lmcache.v1.storage_backend.abstract_backend import StoragePluginInterface

from ..held import HeldLookUps
from ..namespace import EngineKeys, namespace_digest
from ..protocol import Chain, Saved
from .layout import Layout
from .link import Link

if TYPE_CHECKING:
    from lmcache.utils import CacheEngineKey
    from lmcache.v1.memory_management import MemoryObj

_log = logging.getLogger("holdfast_kv.lmcache")


class HoldfastStorage(StoragePluginInterface):
    """The agent as a storage backend, one instance an engine's worker."""

    def __init__(
        self,
        config: Any = None,
        metadata: Any = None,
        local_cpu_backend: Any = None,
        loop: asyncio.AbstractEventLoop | None = None,
        dst_device: str = "cpu",
    ) -> None:
        super().__init__(
            dst_device=dst_device, config=config, metadata=metadata, local_cpu_backend=local_cpu_backend, loop=loop
        )
        if config is None or metadata is None or local_cpu_backend is None:
            raise ValueError("holdfast: LMCache gave no config, metadata or CPU backend")
        extra = config.extra_config or {}
        self._params: dict[str, Any] = {
            name.removeprefix("holdfast."): value for name, value in extra.items() if name.startswith("holdfast.")
        }
        self._params |= {"chunk_tokens": config.chunk_size, "memory_order": "layerwise" if config.use_layerwise else ""}
        self._deadline = float(self._params.get("transfer_deadline", 5.0))
        self._heads = _heads(metadata)
        self._link = Link(
            self._params,
            int(local_cpu_backend.get_full_chunk_size_bytes()),
            Layout.of(metadata.get_shapes(), metadata.get_dtypes()),
            int(self._params.get("staging_bytes", 256 << 20)),
        )
        self._held = HeldLookUps(self._link.client)
        self._lock = threading.Lock()
        self._putting: set[CacheEngineKey] = set()
        self._pins: dict[CacheEngineKey, int] = {}
        self._makers: dict[tuple[Any, ...], EngineKeys] = {}

    def __str__(self) -> str:
        return "HoldfastStorage"

    # ---- look-ups

    def contains(self, key: CacheEngineKey, pin: bool = False) -> bool:
        """Whether a chunk can be loaded."""
        return self.batched_contains([key], pin) == 1

    def batched_contains(self, keys: list[CacheEngineKey], pin: bool = False) -> int:
        """How many chunks from the first on can be loaded. Waits for the agent as long as a look-up may take."""
        if not keys or not self._link.client.is_open:
            return 0
        # Each worker asks for its own part of the prompt, whose tokens are counted once.
        tokens = 0 if keys[0].worker_id else len(keys) * self._link.block_tokens
        chain = self._chain(keys)
        ticket, answer = self._link.client.lookup(chain, prompt_tokens=tokens)
        hits = min(len(keys), answer.result().hit_blocks)
        self._held.hold(ticket, chain, hits)
        if pin:
            for key in keys[:hits]:
                self.pin(key)
        return hits

    async def batched_async_contains(self, lookup_id: str, keys: list[CacheEngineKey], pin: bool = False) -> int:
        """``batched_contains`` without blocking the loop."""
        return await asyncio.to_thread(self.batched_contains, keys, pin)

    def exists_in_put_tasks(self, key: CacheEngineKey) -> bool:
        """Whether a chunk is on its way to the agent."""
        with self._lock:
            return key in self._putting

    # ---- puts

    def batched_submit_put_task(
        self,
        keys: Sequence[CacheEngineKey],
        objs: list[MemoryObj],
        transfer_spec: Any = None,
        on_complete_callback: Callable[[CacheEngineKey], None] | None = None,
    ) -> list[Future[None]] | None:
        """Offers chunks; their buffers are held until they were copied."""
        with self._lock:
            wanted = [at for at, key in enumerate(keys) if key not in self._putting]
            wanted = [at for at in wanted if objs[at].get_size() == self._link.block_bytes]
            self._putting.update(keys[at] for at in wanted)
        if not wanted or not self._link.client.is_open:
            self._forget([keys[at] for at in wanted])
            return None
        chain = self._chain(keys)
        futures: list[Future[None]] = []
        for run in _runs(wanted):
            for first in range(0, len(run), self._link.piece):
                futures.append(self._put(keys, objs, chain, run[first : first + self._link.piece], on_complete_callback))
        return futures

    def _put(
        self,
        keys: Sequence[CacheEngineKey],
        objs: Sequence[MemoryObj],
        chain: Chain,
        members: list[int],
        told: Callable[[CacheEngineKey], None] | None,
    ) -> Future[None]:
        done: Future[None] = Future()
        for at in members:
            objs[at].ref_count_up()

        def ended(future: Future[Saved]) -> None:
            self._forget([keys[at] for at in members])
            try:
                for place, at in enumerate(members):
                    if told is not None and future.result().is_kept(place):
                        told(keys[at])
            finally:
                # Last: whoever waits for it finds all of it done.
                done.set_result(None)

        def begin() -> None:
            cut = Chain(chain.keys[: members[-1] + 1], chain.group, chain.shard, chain.shards)
            try:
                job = self._link.save(cut, [objs[at] for at in members], self._deadline)
            finally:
                for at in members:
                    objs[at].ref_count_down()
            job.add_done_callback(ended)

        self._link.begin(begin)
        return done

    def _forget(self, keys: Sequence[CacheEngineKey]) -> None:
        with self._lock:
            self._putting.difference_update(keys)

    # ---- gets

    def get_blocking(self, key: CacheEngineKey) -> MemoryObj | None:
        """A chunk in a buffer of LMCache's, or None."""
        return self.batched_get_blocking([key])[0]

    def batched_get_blocking(self, keys: list[CacheEngineKey]) -> list[MemoryObj | None]:
        """Chunks in buffers of LMCache's, None for those that did not come."""
        if not self._link.client.is_open:
            return [None] * len(keys)
        chain, came = self._chain(keys), 0
        request = self._held.claim(chain)
        try:
            got = self._get(chain, request)
            came = next((at for at, thing in enumerate(got) if thing is None), len(got))
            return got
        finally:
            self._held.loaded(request, came, is_whole=came == len(keys))

    def _get(self, chain: Chain, request: int) -> list[MemoryObj | None]:
        """Chunks of a chain in buffers of LMCache's, None for those that did not come."""
        got: list[MemoryObj | None] = [None] * len(chain.keys)
        loads: list[tuple[int, list[MemoryObj], Future[int]]] = []
        for first in range(0, len(got), self._link.piece):
            wanted = min(self._link.piece, len(got) - first)
            buffers = self._buffers(wanted)
            if buffers:
                cut = Chain(chain.keys[: first + len(buffers)], chain.group, chain.shard, chain.shards)
                loads.append((first, buffers, self._link.load(cut, first, buffers, self._deadline, request)))
            if len(buffers) < wanted:
                break
        is_gap = False
        for first, buffers, load in loads:
            came = load.result()
            if is_gap:
                came = 0  # what lies behind a chunk that did not come is of no use
            is_gap = came < len(buffers)
            for at, thing in enumerate(buffers):
                if at < came:
                    got[first + at] = thing
                else:
                    thing.ref_count_down()
        return got

    def _buffers(self, count: int) -> list[MemoryObj]:
        """Buffers of LMCache's, as many as there are."""
        assert self.local_cpu_backend is not None and self.metadata is not None
        buffers: list[MemoryObj] = []
        while len(buffers) < count:
            thing = self.local_cpu_backend.allocate(self.metadata.get_shapes(), self.metadata.get_dtypes())
            if thing is None:
                break
            buffers.append(thing)
        return buffers

    async def batched_get_non_blocking(
        self, lookup_id: str, keys: list[CacheEngineKey], transfer_spec: Any = None
    ) -> list[MemoryObj]:
        """The leading chunks that came."""
        got = await asyncio.to_thread(self.batched_get_blocking, keys)
        leading: list[MemoryObj] = []
        for thing in got:
            if thing is None:
                break
            leading.append(thing)
        return leading

    # ---- the rest

    def pin(self, key: CacheEngineKey) -> bool:
        """Keeps what this node has of a chunk for a minute at most."""
        ticket, answer = self._link.client.pin(self._chain([key]), 60.0)
        granted = answer.result().blocks > 0
        if granted:
            with self._lock:
                self._pins[key] = ticket
        return granted

    def unpin(self, key: CacheEngineKey) -> bool:
        """Takes a pin back."""
        with self._lock:
            ticket = self._pins.pop(key, None)
        if ticket is None:
            return False
        self._link.client.unpin(ticket)
        return True

    def remove(self, key: CacheEngineKey, force: bool = True) -> bool:
        """Blocks are immutable and shared; which of them leave is the agent's to decide."""
        return False

    def get_allocator_backend(self) -> Any:
        """Where buffers of gets come from."""
        return self.local_cpu_backend

    def touch_cache(self) -> None:
        """The agent sees uses as they happen."""

    def close(self) -> None:
        """Leaves the agent, after the last byte."""
        self._held.close()
        self._link.close()

    def _chain(self, keys: Sequence[CacheEngineKey]) -> Chain:
        return Chain(tuple(self._maker(key)(_hash_bytes(key.chunk_hash)) for key in keys))

    def _maker(self, key: CacheEngineKey) -> EngineKeys:
        name = (key.model_name, key.world_size, key.worker_id, str(key.dtype), key.tags)
        maker = self._makers.get(name)
        if maker is None:
            fields = self._link.namespace(
                self._link.layout,
                model=key.model_name,
                tenant_salt="" if key.tags is None else repr(key.tags),
                lmcache_dtype=str(key.dtype),
                lmcache_rank=f"{key.worker_id} of {key.world_size}",
                **self._heads,
            )
            maker = self._makers[name] = EngineKeys(namespace_digest(fields))
        return maker


def _heads(metadata: Any) -> dict[str, str]:
    """The geometry of heads, where LMCache says it: its shape is layers, 2, tokens, heads, head size."""
    shape = tuple(getattr(metadata, "kv_shape", None) or ())
    if len(shape) != 5:
        return {}
    return {"layers": str(shape[0]), "kv_heads": str(shape[3]), "head_size": str(shape[4])}


def _hash_bytes(chunk_hash: int | bytes) -> bytes:
    if isinstance(chunk_hash, bytes):
        return chunk_hash
    return (chunk_hash & (1 << 256) - 1).to_bytes(32, "big")


def _runs(places: Sequence[int]) -> list[list[int]]:
    """Neighbours together."""
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs
