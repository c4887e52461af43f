"""Holdfast as SGLang's HiCache storage: ``--hicache-storage-backend dynamic`` with

    {"backend_name": "holdfast", "module_path": "holdfast_kv.sglang.hicache", "class_name": "HoldfastHiCache",
     "interface_v1": 1, "allocator": "shm", "socket": "/run/holdfast/agent.sock"}

With the ``shm`` allocator the agent maps the host pool and moves pages in place; without it pages are copied through a
staging region. SGLang calls from its prefetch and backup threads and waits; without an agent every page is a miss, at
once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from sglang.srt.mem_cache.hicache_storage import (
    HiCacheStorage,
    HiCacheStorageConfig,
    HiCacheStorageExtraInfo,
    PoolHitPolicy,
    PoolName,
    PoolTransfer,
    PoolTransferResult,
)

from ..client import DEFAULT_SOCKET, Client, Settings
from ..mover import Mover, Piece
from ..protocol import Chain, Ownership
from .identity import engine_facts, namespace_fields, pool_fields, shard_of
from .pools import Pool, group_of, is_chain, page_size_of, payloads_of, restorable_by

if TYPE_CHECKING:
    from sglang.srt.mem_cache.pool_host import HostKVCache

_log = logging.getLogger("holdfast_kv.sglang")


class HoldfastHiCache(HiCacheStorage):
    """The agent behind HiCache. One instance a rank."""

    def __init__(self, storage_config: HiCacheStorageConfig, kwargs: dict[str, Any] | None = None) -> None:
        self._config = storage_config
        extra = dict(storage_config.extra_config or {})
        self._socket = str(extra.get("socket", DEFAULT_SOCKET))
        self._store_namespace = str(extra.get("store_namespace", "default"))
        self._tenant_salt = str(extra.get("tenant_salt", ""))
        self._staging_bytes = int(extra.get("staging_bytes", 64 << 20))
        self._settings = Settings(
            lookup_deadline=float(extra.get("lookup_deadline", 0.2)),
            load_deadline=float(extra.get("load_deadline", 5.0)),
            save_deadline=float(extra.get("store_deadline", 30.0)),
        )
        self._attach_seconds = float(extra.get("attach_seconds", 2.0))
        self._pools: dict[str, Pool] = {}
        self._mover: Mover | None = None
        #: The namespace of KV's pages.
        self._fields: dict[str, str] = {}
        self._shard, self._shards = shard_of(storage_config)
        self._counts = {"pages_found": 0, "pages_loaded": 0, "pages_saved": 0}
        self._counts_lock = threading.Lock()

    # ---- attach

    def register_mem_pool_host(self, mem_pool_host: HostKVCache) -> None:
        """The pool of KV pages: connects, and hands the pool's memory over if it can be shared."""
        super().register_mem_pool_host(mem_pool_host)
        probe = payloads_of(mem_pool_host, torch.zeros(page_size_of(mem_pool_host), dtype=torch.int64), 1)
        if probe is None:
            raise ValueError("this host pool does not say where its pages lie; use --hicache-mem-layout page_first")
        page_bytes = sum(length for _, length in probe[0])
        fields = namespace_fields(
            self._config, mem_pool_host, page_bytes, self._tenant_salt, self._config.extra_config, engine_facts()
        )
        self._fields = fields
        self._pools[PoolName.KV] = Pool(mem_pool_host, 0, not self._config.is_mla_model, fields)
        client = Client(
            self._socket,
            kind="sglang",
            store_namespace=self._store_namespace,
            fields=fields,
            block_bytes=page_bytes,
            ownership=Ownership.ENGINE,
            client="holdfast-kv sglang",
            settings=self._settings,
        )
        self._mover = Mover(client, block_bytes=page_bytes, staging_bytes=self._staging_bytes)
        self._share(mem_pool_host)
        # SGLang asks from its first request on; a short wait saves the first prompts from being computed for nothing.
        client.wait_open(self._attach_seconds)

    def register_mem_host_pool_v2(self, host_pool: HostKVCache, host_pool_name: str) -> None:
        """A further pool (Mamba state, window, indexer, draft): pages under the same keys, in a group of its own."""
        super().register_mem_host_pool_v2(host_pool, host_pool_name)
        name = str(host_pool_name)
        if name in self._pools:
            return
        is_sharded = name == PoolName.MAMBA or not self._config.is_mla_model
        self._pools[name] = Pool(host_pool, group_of(name), is_sharded, self._fields | pool_fields(name, host_pool))
        self._share(host_pool)

    def _share(self, pool: HostKVCache) -> None:
        assert self._mover is not None
        for name in ("kv_buffer", "temporal_buffer", "conv_buffer", "index_k_with_scale_buffer"):
            buffer = getattr(pool, name, None)
            for tensor in buffer if isinstance(buffer, (list, tuple)) else [buffer]:
                if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                    size = tensor.untyped_storage().nbytes()
                    if not self._mover.share(tensor.untyped_storage().data_ptr(), size):
                        _log.info('pages of %s are copied; "allocator": "shm" shares them', name)

    # ---- keys

    def _chain(self, keys: Sequence[str], before: Sequence[str], pool: Pool) -> Chain:
        names = tuple(pool.keys(_raw(key)) for key in (*before, *keys))
        shard, shards = (self._shard, self._shards) if pool.is_sharded else self._replicated()
        return Chain(names, pool.group, shard, shards)

    def _replicated(self) -> tuple[int, int]:
        # One copy for all tensor ranks: a shard is a stage of the pipeline, and a slice of the context.
        config = self._config
        stage = (config.pp_rank * config.attn_cp_size + config.attn_cp_rank) * config.dcp_size + config.dcp_rank
        return stage, config.pp_size * config.attn_cp_size * config.dcp_size

    @staticmethod
    def _before(extra_info: HiCacheStorageExtraInfo | None) -> list[str]:
        return list(extra_info.prefix_keys or []) if extra_info is not None else []

    # ---- look-ups

    def exists(self, key: str) -> bool:
        """Whether a page can be loaded."""
        return self.batch_exists([key]) == 1

    def batch_exists(self, keys: list[str], extra_info: HiCacheStorageExtraInfo | None = None) -> int:
        """Leading pages that can be loaded."""
        return self._leading(self._pools.get(PoolName.KV), keys, self._before(extra_info))

    def _leading(self, pool: Pool | None, keys: Sequence[str], before: Sequence[str] = ()) -> int:
        if self._mover is None or pool is None or not keys:
            return 0
        chain = self._chain(keys, before, pool)
        # Ranks and further pools ask for parts of one prompt, whose tokens are counted once.
        tokens = 0 if self._shard or pool.group else len(chain.keys) * pool.page_size
        found = self._mover.look_up(chain, prompt_tokens=tokens)
        hits = max(0, min(found, len(chain.keys)) - len(before))
        self._count("pages_found", hits)
        return hits

    def batch_exists_v2(
        self,
        keys: list[str],
        pool_transfers: list[PoolTransfer] | None = None,
        extra_info: HiCacheStorageExtraInfo | None = None,
    ) -> PoolTransferResult:
        """The longest prefix that every pool can restore, and what each pool has of it."""
        pages = self.batch_exists(keys, extra_info)
        hits: dict[str, int] = {PoolName.KV: pages} if pages else {}
        restorable = list(range(1, pages + 1))
        for transfer in pool_transfers or []:
            if not restorable:
                break
            pool = self._pools.get(str(transfer.name))
            present = self._present(pool, transfer, keys[:pages])
            able = restorable_by(transfer, present, pages)
            boundary = max(able, default=0)
            if boundary:
                hits[transfer.name] = boundary
            if transfer.hit_policy != PoolHitPolicy.BLOCK_GROUPS:
                restorable = [length for length in restorable if length in able]
        return PoolTransferResult(restorable[-1] if restorable else 0, hits, restorable)

    def _present(self, pool: Pool | None, transfer: PoolTransfer, keys: Sequence[str]) -> list[bool]:
        if pool is None:
            return [False] * len(keys)
        if transfer.hit_policy == PoolHitPolicy.ALL_PAGES:
            leading = self._leading(pool, keys)
            return [index < leading for index in range(len(keys))]
        # A window lies anywhere in the prefix: each page is a chain of its own.
        return [self._leading(pool, [key]) == 1 for key in keys]

    # ---- pages in place

    def batch_get_v1(
        self, keys: list[str], host_indices: torch.Tensor, extra_info: HiCacheStorageExtraInfo | None = None
    ) -> list[bool]:
        """Fills host pages; the caller stops at the first False."""
        pool = self._pools.get(PoolName.KV)
        loaded = self._load(pool, keys, host_indices, self._before(extra_info))
        return [index < loaded for index in range(len(keys))]

    def batch_set_v1(
        self, keys: list[str], host_indices: torch.Tensor, extra_info: HiCacheStorageExtraInfo | None = None
    ) -> list[bool]:
        """Offers host pages."""
        return self._save(self._pools.get(PoolName.KV), keys, host_indices, self._before(extra_info))

    def batch_get_v2(
        self, transfers: list[PoolTransfer], extra_info: HiCacheStorageExtraInfo | None = None
    ) -> dict[str, list[bool]]:
        """Fills pages of several pools."""
        results: dict[str, list[bool]] = {}
        for transfer in transfers:
            pool, keys = self._pools.get(str(transfer.name)), list(transfer.keys or [])
            if is_chain(transfer):
                before = self._before(extra_info) if transfer.name == PoolName.KV else []
                loaded = self._load(pool, keys, transfer.host_indices, before)
                results[transfer.name] = [index < loaded for index in range(len(keys))]
            else:
                results[transfer.name] = [
                    self._load(pool, [key], indices, []) == 1 for key, indices in self._single(pool, transfer)
                ]
        return results

    def batch_set_v2(
        self, transfers: list[PoolTransfer], extra_info: HiCacheStorageExtraInfo | None = None
    ) -> dict[str, list[bool]]:
        """Offers pages of several pools."""
        results: dict[str, list[bool]] = {}
        for transfer in transfers:
            pool, keys = self._pools.get(str(transfer.name)), list(transfer.keys or [])
            if is_chain(transfer):
                before = self._before(extra_info) if transfer.name == PoolName.KV else []
                results[transfer.name] = self._save(pool, keys, transfer.host_indices, before)
            else:
                results[transfer.name] = [
                    self._save(pool, [key], indices, [])[0] for key, indices in self._single(pool, transfer)
                ]
        return results

    @staticmethod
    def _single(pool: Pool | None, transfer: PoolTransfer) -> list[tuple[str, torch.Tensor]]:
        keys = list(transfer.keys or [])
        size = pool.page_size if pool is not None else 1
        indices = transfer.host_indices
        if indices is None or indices.numel() != len(keys) * size:
            return [(key, torch.empty(0, dtype=torch.int64)) for key in keys]
        return [(key, indices[at * size : (at + 1) * size]) for at, key in enumerate(keys)]

    def _load(self, pool: Pool | None, keys: Sequence[str], indices: torch.Tensor | None, before: Sequence[str]) -> int:
        payloads = self._payloads(pool, keys, indices)
        if self._mover is None or pool is None or payloads is None:
            return 0
        loaded = self._mover.load(self._chain(keys, before, pool), len(before), payloads)
        self._count("pages_loaded", loaded)
        return loaded

    def _save(
        self, pool: Pool | None, keys: Sequence[str], indices: torch.Tensor | None, before: Sequence[str]
    ) -> list[bool]:
        payloads = self._payloads(pool, keys, indices)
        if self._mover is None or pool is None or payloads is None:
            return [False] * len(keys)
        if not pool.is_sharded and not self._config.is_storage_writer:
            return [True] * len(keys)  # another rank writes the same bytes
        kept = self._mover.save(self._chain(keys, before, pool), len(before), payloads)
        self._count("pages_saved", sum(kept))
        return kept

    @staticmethod
    def _payloads(pool: Pool | None, keys: Sequence[str], indices: torch.Tensor | None) -> list[list[Piece]] | None:
        if pool is None or indices is None or not keys:
            return None
        if indices.numel() < len(keys) * pool.page_size:
            _log.error("%d indices for %d pages of %d tokens", indices.numel(), len(keys), pool.page_size)
            return None
        return pool.payloads(indices[: len(keys) * pool.page_size], len(keys))

    # ---- copying calls of older SGLang

    def get(self, key: str, target_location: torch.Tensor | None = None, target_sizes: Any = None) -> torch.Tensor | None:
        """Copies a page into a flat tensor."""
        pool = self._pools.get(PoolName.KV)
        if self._mover is None or pool is None or target_location is None or not target_location.is_contiguous():
            return None
        piece = (target_location.data_ptr(), target_location.numel() * target_location.element_size())
        loaded = self._mover.load(self._chain([key], [], pool), 0, [[piece]])
        self._count("pages_loaded", loaded)
        return target_location if loaded else None

    def batch_get(
        self, keys: list[str], target_locations: list[torch.Tensor] | None = None, target_sizes: Any = None
    ) -> list[torch.Tensor | None]:
        """Copies pages into flat tensors."""
        targets = target_locations or [None] * len(keys)
        return [self.get(key, target) for key, target in zip(keys, targets, strict=True)]

    def set(
        self, key: str, value: torch.Tensor | None = None, target_location: Any = None, target_sizes: Any = None
    ) -> bool:
        """Offers a page that lies in a flat tensor."""
        return self.batch_set([key], [value] if value is not None else None)

    def batch_set(
        self,
        keys: list[str],
        values: list[torch.Tensor] | None = None,
        target_locations: Any = None,
        target_sizes: Any = None,
    ) -> bool:
        """Offers pages that lie in flat tensors, a chain from its root."""
        pool = self._pools.get(PoolName.KV)
        if self._mover is None or pool is None or values is None:
            return False
        if not pool.is_sharded and not self._config.is_storage_writer:
            return True
        values = [value.contiguous() for value in values]
        payloads = [[(value.data_ptr(), value.numel() * value.element_size())] for value in values]
        kept = [
            self._mover.save(self._chain([key], [], pool), 0, [each])[0] for key, each in zip(keys, payloads, strict=True)
        ]
        self._count("pages_saved", sum(kept))
        return all(kept)

    # ---- the rest

    def clear(self) -> None:
        """What other engines share is not this engine's to delete; blocks leave by the agent's rules."""
        _log.info("clear: nothing is deleted; blocks of this engine leave by the agent's own rules")

    def get_stats(self) -> None:
        """SGLang's own numbers of pages cover this backend."""
        return None

    @property
    def counts(self) -> dict[str, int]:
        """Pages found, loaded and saved, and bytes by way."""
        mover = self._mover
        ways = {"bytes_shared": mover.bytes_shared, "bytes_copied": mover.bytes_copied} if mover else {}
        return self._counts | ways

    def _count(self, name: str, count: int) -> None:
        with self._counts_lock:
            self._counts[name] += count

    def close(self) -> None:
        """Leaves the agent."""
        if self._mover is not None:
            self._mover.close()


def _raw(key: str) -> bytes:
    try:
        return bytes.fromhex(key)
    except ValueError:
        return key.encode()
