"""SGLang's storage against an agent in memory: the v1 and v2 calls, shared and staged pools, ranks, failures.

On the stand-in of ``stubs.sglang`` where SGLang is not installed, on the real package where it is. Pools are of this file;
SGLang's own pools and factory are in ``engines/sglang_hicache.py``.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
import unittest
import unittest.mock
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import stubs.sglang
from memory_agent import AgentTest

if not stubs.is_installed("sglang"):
    stubs.sglang.install()

import torch
from sglang.srt.mem_cache.hicache_storage import (
    HiCacheStorageConfig,
    HiCacheStorageExtraInfo,
    PoolHitPolicy,
    PoolName,
    PoolTransfer,
)

from holdfast_kv.protocol import LookUp, Refusal, Refused
from holdfast_kv.regions import SharedMemory
from holdfast_kv.sglang.hicache import HoldfastHiCache
from holdfast_kv.sglang.pools import group_of, restorable_by

PAGE, PAGES = 4, 32


class HostPool:
    """Pages of two pieces each, keys and values, as page-first pools of multi-head models have them."""

    layout, layer_num, head_num, head_dim, dtype = "page_first", 2, 2, 16, "bfloat16"

    def __init__(self, page_bytes: int = 8192) -> None:
        self.page_size = PAGE
        self.page_bytes = page_bytes
        self.memory = SharedMemory(page_bytes * PAGES)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory.view))

    def get_page_buffer_meta(self, indices: Any) -> tuple[list[int], list[int]]:
        pages = [index // PAGE for index in indices.tolist()[::PAGE]]
        half = self.page_bytes // 2
        return [self.base + page * self.page_bytes + part * half for page in pages for part in (0, 1)], [half] * (2 * len(pages))

    def fill(self, pages: range, first: int) -> None:
        for number, page in enumerate(pages):
            self.memory.view[page * self.page_bytes : (page + 1) * self.page_bytes] = bytes([first + number]) * self.page_bytes

    def bytes_of(self, pages: range) -> list[int]:
        """The byte that each page is full of; -1 when there are several."""
        found = []
        for page in pages:
            inside = set(self.memory.view[page * self.page_bytes : (page + 1) * self.page_bytes])
            found.append(inside.pop() if len(inside) == 1 else -1)
        return found


def names(text: str, count: int) -> list[str]:
    return [hashlib.sha256(f"{text}{number}".encode()).hexdigest() for number in range(count)]


def indices(pages: range) -> Any:
    return torch.arange(pages.start * PAGE, pages.stop * PAGE)


class HiCacheTest(AgentTest):
    def backend(
        self, pool: HostPool, *, rank: int = 0, ranks: int = 1, mla: bool = False, shares: bool = True,
        facts: dict[str, str] | None = None, **extra: Any,
    ) -> HoldfastHiCache:  # fmt: skip
        config = HiCacheStorageConfig(
            tp_rank=rank, tp_size=ranks, pp_rank=0, pp_size=1, attn_cp_rank=0, attn_cp_size=1, is_mla_model=mla,
            enable_storage_metrics=False, is_page_first_layout=True, model_name="m/m",
            extra_config={"socket": self.socket, "lookup_deadline": 15.0, "attach_seconds": 15.0, **extra},
        )  # fmt: skip
        backend = HoldfastHiCache(config, {})
        with unittest.mock.patch("holdfast_kv.sglang.hicache.engine_facts", lambda: facts or {}):
            backend.register_mem_pool_host(pool)
        self.addCleanup(backend.close)
        if shares:
            assert backend._mover is not None
            backend._mover.share(pool.base, pool.memory.length)
        return backend

    def round_trip(self, backend: HoldfastHiCache, pool: HostPool) -> dict[str, int]:
        keys = names("a", 12)
        chain = HiCacheStorageExtraInfo(prefix_keys=[])
        self.assertEqual(backend.batch_exists(keys, chain), 0)
        pool.fill(range(12), 1)
        self.assertEqual(backend.batch_set_v1(keys[:8], indices(range(8)), chain), [True] * 8)
        behind = HiCacheStorageExtraInfo(prefix_keys=keys[:8])
        self.assertEqual(backend.batch_set_v1(keys[8:], indices(range(8, 12)), behind), [True] * 4)
        self.assertEqual(backend.batch_exists([*keys, *names("none", 1)], chain), 12)
        self.assertTrue(backend.exists(keys[0]))
        self.assertEqual(backend.batch_get_v1([*keys, *names("none", 1)], indices(range(16, 29)), chain), [True] * 12 + [False])
        self.assertEqual(pool.bytes_of(range(16, 28)), list(range(1, 13)))
        return backend.counts

    def test_pages_of_a_shared_pool_move_without_a_copy_here(self) -> None:
        pool = HostPool()
        counts = self.round_trip(self.backend(pool), pool)
        self.assertEqual(counts["bytes_copied"], 0)
        self.assertEqual((counts["pages_saved"], counts["pages_loaded"]), (12, 12))

    def test_pages_of_other_memory_are_staged(self) -> None:
        pool = HostPool()
        counts = self.round_trip(self.backend(pool, shares=False, staging_bytes=3 * pool.page_bytes), pool)
        self.assertEqual(counts["bytes_shared"], 0)
        self.assertEqual(counts["bytes_copied"], 24 * pool.page_bytes)

    def test_pools_of_a_hybrid_model_answer_by_their_policies(self) -> None:
        pool, window = HostPool(), HostPool(4096)
        backend = self.backend(pool)
        backend.register_mem_host_pool_v2(window, PoolName.SWA)
        keys, trailing = names("h", 8), PoolHitPolicy.TRAILING_PAGES
        pool.fill(range(8), 1)
        window.fill(range(2), 100)
        sets = [
            PoolTransfer(PoolName.KV, host_indices=indices(range(8)), keys=keys),
            PoolTransfer(PoolName.SWA, host_indices=indices(range(2)), keys=keys[4:6], hit_policy=trailing),
        ]
        kept = backend.batch_set_v2(sets)
        self.assertEqual((kept[PoolName.KV], kept[PoolName.SWA]), ([True] * 8, [True] * 2))
        found = backend.batch_exists_v2(keys, [PoolTransfer(PoolName.SWA, keys=keys[:2], hit_policy=trailing)])
        self.assertEqual((found.kv_hit_pages, found.restorable_prefix_pages), (6, [6]))
        pool.fill(range(8), 50)
        window.fill(range(2), 50)
        got = backend.batch_get_v2(sets)
        self.assertEqual((got[PoolName.KV], got[PoolName.SWA]), ([True] * 8, [True] * 2))
        self.assertEqual((pool.bytes_of(range(8)), window.bytes_of(range(2))), (list(range(1, 9)), [100, 101]))

    def test_what_a_pool_can_restore_follows_from_its_policy(self) -> None:
        there = [True, True, False, True, True, False]
        for transfer, lengths in (
            (PoolTransfer(PoolName.INDEXER), {1, 2}),
            (PoolTransfer(PoolName.SWA, keys=["a", "b"], hit_policy=PoolHitPolicy.TRAILING_PAGES), {1, 2, 5}),
            (PoolTransfer(PoolName.INDEXER, hit_policy=PoolHitPolicy.BLOCK_GROUPS, block_pages=2), {1, 2, 3, 4}),
        ):
            self.assertEqual(restorable_by(transfer, there, 6), lengths, transfer.hit_policy)

    def test_pools_have_numbers_of_their_own(self) -> None:
        numbers = [group_of(str(name)) for name in PoolName]
        self.assertEqual(len(set(numbers)), len(numbers))
        self.assertEqual(group_of("kv"), 0)
        # Parts of long pages are 4,096 groups apart.
        self.assertLess(max(numbers), 4096)

    def test_ranks_of_a_sharded_model_do_not_meet_and_those_of_a_replicated_one_share(self) -> None:
        keys = names("r", 3)
        for mla in (False, True):
            pools = [HostPool(), HostPool()]
            first, second = (self.backend(pool, rank=rank, ranks=2, mla=mla, tenant_salt=str(mla)) for rank, pool in enumerate(pools))
            pools[0].fill(range(3), 1)
            self.assertEqual(first.batch_set_v1(keys, indices(range(3))), [True] * 3)
            self.assertEqual(second.batch_exists(keys), 3 if mla else 0)
            stored = len(self.agent.blocks)
            self.assertEqual(second.batch_set_v1(keys, indices(range(3))), [True] * 3)
            # Of replicated pages one rank's are kept, of sharded ones each rank's.
            self.assertEqual(len(self.agent.blocks) - stored, 0 if mla else 3)

    def test_a_prompt_of_many_ranks_and_pools_is_one_prompt(self) -> None:
        for rank in range(2):
            backend = self.backend(HostPool(), rank=rank, ranks=2)
            backend.register_mem_host_pool_v2(HostPool(4096), PoolName.INDEXER)
            backend.batch_set_v1(names("p", 3), indices(range(3)))
            backend.batch_exists_v2(names("p", 3), [PoolTransfer(PoolName.INDEXER)])
        asked = [(frame.chain.shard, frame.prompt_tokens) for frame in self.agent.heard if isinstance(frame, LookUp)]
        self.assertEqual([each for each in asked if each[1]], [(0, 3 * PAGE)])
        self.assertEqual(len(asked), 4)

    def test_the_same_bytes_in_another_dtype_or_geometry_do_not_meet(self) -> None:
        pool, keys = HostPool(), names("d", 2)
        pool.fill(range(2), 1)
        self.assertEqual(self.backend(pool).batch_set_v1(keys, indices(range(2))), [True] * 2)
        for change in ({"dtype": "float16"}, {"head_num": 4, "head_dim": 8}, {"layer_num": 1, "v_head_dim": 32}, {"layout": "page_head"}):
            other = HostPool()
            vars(other).update(change)
            backend = self.backend(other)
            self.assertEqual(backend.batch_exists(keys), 0, change)
            self.assertEqual(backend.batch_get_v1(keys, indices(range(2))), [False] * 2, change)
        for facts in ({"model_path": "/m"}, {"revision": "r"}, {"tokenizer_path": "/t"}):
            self.assertEqual(self.backend(HostPool(), facts=facts).batch_exists(keys), 0, facts)
        self.assertEqual(self.backend(HostPool()).batch_exists(keys), 2)

    def test_the_kinds_of_fp8_do_not_meet(self) -> None:
        keys, scales = names("f", 2), Path(self.socket).with_name("scales.json")
        scales.write_bytes(b"some")

        def backend(kind: str, device: str = "", path: str = "", **extra: Any) -> tuple[HoldfastHiCache, HostPool]:
            pool = HostPool()
            # What a host pool of SGLang's says, whichever fp8 its device's pool has.
            pool.dtype = "torch.uint8"
            if device:
                pool.device_pool = SimpleNamespace(dtype=device)  # type: ignore[attr-defined]
            facts = {"kv_cache_dtype": kind} | ({"quantization_param_path": path} if path else {})
            return self.backend(pool, facts=facts if kind else {}, **extra), pool

        first, pool = backend("fp8_e4m3")
        pool.fill(range(2), 1)
        self.assertEqual(first.batch_set_v1(keys, indices(range(2))), [True] * 2)
        self.assertEqual(backend("fp8_e4m3")[0].batch_exists(keys), 2)
        for kind, device, path, extra in (
            ("fp8_e5m2", "", "", {}), ("mxfp8", "", "", {}), ("auto", "", "", {}), ("fp8_e4m3", "torch.float8_e4m3fnuz", "", {}),
            ("fp8_e4m3", "", str(scales), {}), ("fp8_e4m3", "", "", {"kv_scales": "mine"}), ("", "", "", {"kv_dtype": "fp8_e5m2"}),
        ):  # fmt: skip
            self.assertEqual(backend(kind, device, path, **extra)[0].batch_exists(keys), 0, (kind, device, path, extra))
        # Scales are what their file says.
        backend("fp8_e4m3", "", str(scales))[0].batch_set_v1(keys, indices(range(2)))
        self.assertEqual(backend("fp8_e4m3", "", str(scales))[0].batch_exists(keys), 2)
        scales.write_bytes(b"others")
        self.assertEqual(backend("fp8_e4m3", "", str(scales))[0].batch_exists(keys), 0)
        with self.assertRaisesRegex(ValueError, "kv_dtype"):
            backend("")

    def test_a_further_pool_in_another_dtype_does_not_meet(self) -> None:
        keys = names("m", 1)
        for dtype in ("bfloat16", "float16"):
            backend, window = self.backend(HostPool()), HostPool(4096)
            window.dtype = dtype
            backend.register_mem_host_pool_v2(window, PoolName.SWA)
            transfer = PoolTransfer(PoolName.SWA, host_indices=indices(range(1)), keys=keys)
            self.assertEqual(backend.batch_get_v2([transfer])[PoolName.SWA], [False], dtype)
            self.assertEqual(backend.batch_set_v2([transfer])[PoolName.SWA], [True], dtype)

    def test_copying_calls_of_older_versions(self) -> None:
        pool = HostPool(64)
        backend, key = self.backend(pool), names("l", 1)[0]
        page = torch.tensor(list(range(64)), dtype=torch.uint8)
        self.assertTrue(backend.batch_set([key], [page]))
        target = torch.tensor([0] * 64, dtype=torch.uint8)
        self.assertIs(backend.get(key, target), target)
        self.assertEqual(target.tolist(), list(range(64)))
        self.assertIsNone(backend.get(names("none", 1)[0], target))

    def test_a_refused_rank_runs_without_a_cache(self) -> None:
        self.agent.refuses = Refused(0, Refusal.LAYOUT, "ours | theirs")
        backend = self.backend(HostPool(), attach_seconds=0.2)
        self.assertEqual(backend.batch_exists(names("a", 2)), 0)
        self.assertEqual(backend.batch_set_v1(names("a", 2), indices(range(2))), [False] * 2)

    def test_when_the_agent_dies_every_page_is_a_miss_at_once(self) -> None:
        pool, keys = HostPool(), names("d", 4)
        backend = self.backend(pool)
        self.assertEqual(backend.batch_set_v1(keys, indices(range(4))), [True] * 4)
        self.agent.stop()
        assert backend._mover is not None
        self.assertTrue(self.agent.wait(lambda: not backend._mover.client.is_open))
        self.assertEqual(backend.batch_exists(keys), 0)
        self.assertEqual(backend.batch_get_v1(keys, indices(range(4))), [False] * 4)
        self.assertEqual(backend.batch_set_v1(keys, indices(range(4))), [False] * 4)


if __name__ == "__main__":
    unittest.main(verbosity=2)
