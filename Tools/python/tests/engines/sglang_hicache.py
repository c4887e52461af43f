"""HiCache's real factory, allocator and host pool over the connector, against the agent at ``HOLDFAST_SOCKET`` (or one in memory).

Runs where SGLang is installed; needs no GPU.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
import time
import unittest

sys.path[:0] = [os.path.join(os.path.dirname(__file__), ".."), os.path.join(os.path.dirname(__file__), "../..")]

import readme
import torch
from memory_agent import MemoryAgent
from sglang.srt.arg_groups.arg_utils import namespace_of
from sglang.srt.mem_cache.hicache_storage import (
    HiCacheStorageConfig,
    HiCacheStorageExtraInfo,
    PoolHitPolicy,
    PoolName,
    PoolTransfer,
)
from sglang.srt.mem_cache.pool_host import common
from sglang.srt.mem_cache.pool_host.mha import MHATokenToKVPoolHost
from sglang.srt.mem_cache.storage.backend_factory import StorageBackendFactory
from sglang.srt.server_args import ServerArgs

from holdfast_kv.protocol import Refusal, Refused
from holdfast_kv.sglang.identity import engine_facts

PAGE, SIZE = 4, 256


def pool_of(layout: str = "page_first", shared: bool = True, layers: int = 3, heads: int = 2) -> MHATokenToKVPoolHost:
    """A real host pool whose fields are set by hand: its constructor wants a GPU's pool beside it."""
    pool = MHATokenToKVPoolHost.__new__(MHATokenToKVPoolHost)
    pool._destroyed = True
    pool.layout, pool.page_size, pool.layer_num, pool.size = layout, PAGE, layers, SIZE
    pool.head_num, pool.head_dim, pool.dtype = heads, 16, torch.bfloat16
    shape = (2, SIZE, layers, heads, 16) if layout == "page_first" else (2, layers, SIZE, heads, 16)
    pool.allocator = common.ShmHostTensorAllocator() if shared else None
    pool.kv_buffer = pool.allocator.allocate(shape, pool.dtype, "cpu") if shared else torch.empty(shape, dtype=pool.dtype)
    return pool


def keys_of(text: str, count: int) -> list[str]:
    return [hashlib.sha256(f"{os.getpid()}/{text}/{number}".encode()).hexdigest() for number in range(count)]


class HiCacheTest(unittest.TestCase):
    def setUp(self) -> None:
        self.agent: MemoryAgent | None = None
        self.socket = os.environ.get("HOLDFAST_SOCKET", "")
        if not self.socket:
            folder = tempfile.TemporaryDirectory()
            self.addCleanup(folder.cleanup)
            self.socket = os.path.join(folder.name, "agent.sock")
            self.agent = MemoryAgent(self.socket)
            self.addCleanup(self.agent.stop)

    def backend(self, pool, *, rank=0, ranks=1, mla=False, **extra):  # type: ignore[no-untyped-def]
        (written,) = readme.configurations("--hicache-storage-backend-extra-config")
        config = HiCacheStorageConfig(
            tp_rank=rank, tp_size=ranks, pp_rank=0, pp_size=1, attn_cp_rank=0, attn_cp_size=1, is_mla_model=mla,
            enable_storage_metrics=False, is_page_first_layout=True, model_name=f"m/{os.getpid()}",
            extra_config=written | {"socket": self.socket, "lookup_deadline": 10.0, **extra},
        )  # fmt: skip
        backend = StorageBackendFactory.create_backend("dynamic", config, pool)
        backend.register_mem_pool_host(pool)
        backend.on_host_pools_registered()
        self.addCleanup(backend.close)
        return backend

    def round_trip(self, pool) -> dict[str, int]:  # type: ignore[no-untyped-def]
        backend = self.backend(pool)
        self.assertIs(backend._mover.client.checked, True, "no block was compared at the attach")
        buffer = pool.kv_buffer
        buffer.view(torch.int16).random_(-30000, 30000)
        before = buffer.view(torch.int16).clone()
        keys = keys_of(pool.layout + str(pool.allocator is None), 20)
        chain = HiCacheStorageExtraInfo(prefix_keys=[])
        self.assertEqual(backend.batch_exists(keys, chain), 0)
        self.assertEqual(backend.batch_set_v1(keys[:12], torch.arange(0, 48), chain), [True] * 12)
        rest = HiCacheStorageExtraInfo(prefix_keys=keys[:12])
        self.assertEqual(backend.batch_set_v1(keys[12:], torch.arange(48, 80), rest), [True] * 8)
        self.assertEqual(backend.batch_exists([*keys, "ff" * 32], chain), 20)
        buffer.zero_()
        # Into other places, the page order reversed within the pool.
        into = torch.cat([torch.arange(start, start + PAGE) for start in range(SIZE - PAGE, SIZE - 21 * PAGE, -PAGE)])
        self.assertEqual(backend.batch_get_v1(keys, into[: 20 * PAGE], chain), [True] * 20)
        token = 1 if pool.layout == "page_first" else 2
        after = buffer.view(torch.int16).index_select(token, into[: 20 * PAGE])
        self.assertTrue(torch.equal(after, before.index_select(token, torch.arange(0, 80))))
        self.assertEqual(backend.batch_get_v1([*keys[:2], "ee" * 32], torch.arange(0, 12)), [True, True, False])
        return backend.counts

    def test_what_the_namespace_reads_of_sglangs_settings_is_where_it_reads_it(self) -> None:
        where = namespace_of(ServerArgs)
        names = ("kv_cache_dtype", "model_path", "quantization_param_path", "revision", "tokenizer_path")
        self.assertEqual([where[name] for name in names], ["model"] * 4 + ["serving"])
        # Nothing was published in this process.
        self.assertEqual(engine_facts(), {})

    def test_pages_of_a_memfd_pool_move_without_a_copy(self) -> None:
        counts = self.round_trip(pool_of())
        self.assertEqual(counts["bytes_copied"], 0)
        self.assertGreater(counts["bytes_shared"], 0)

    def test_pages_of_other_memory_are_staged(self) -> None:
        counts = self.round_trip(pool_of(shared=False))
        self.assertEqual(counts["bytes_shared"], 0)
        self.assertGreater(counts["bytes_copied"], 0)

    def test_layer_first_pages_keep_their_order(self) -> None:
        self.round_trip(pool_of("layer_first"))

    def test_staging_smaller_than_a_batch(self) -> None:
        pool = pool_of(shared=False)
        backend = self.backend(pool, staging_bytes=1)
        keys = keys_of("small", 30)
        pool.kv_buffer.view(torch.int16).random_(-30000, 30000)
        before = pool.kv_buffer.view(torch.int16).clone()
        self.assertTrue(all(backend.batch_set_v1(keys, torch.arange(0, 120))))
        pool.kv_buffer.zero_()
        self.assertTrue(all(backend.batch_get_v1(keys, torch.arange(0, 120))))
        self.assertTrue(torch.equal(pool.kv_buffer.view(torch.int16)[:, :120], before[:, :120]))

    def test_legacy_calls_copy(self) -> None:
        pool = pool_of()
        backend = self.backend(pool)
        page = torch.randint(0, 255, (2 * PAGE * 3 * 2 * 16 * 2,), dtype=torch.uint8)
        key = keys_of("legacy", 1)[0]
        self.assertFalse(backend.exists(key))
        self.assertTrue(backend.batch_set([key], [page]))
        self.assertTrue(backend.exists(key))
        target = torch.zeros_like(page)
        self.assertIs(backend.get(key, target), target)
        self.assertTrue(torch.equal(target, page))
        self.assertIsNone(backend.get("ab" * 32, target))

    def test_pools_of_a_hybrid_model(self) -> None:
        pool, window, large = pool_of(), pool_of(layers=1), pool_of(layers=8)
        backend = self.backend(pool)
        backend.register_mem_host_pool_v2(window, PoolName.SWA)
        backend.register_mem_host_pool_v2(large, PoolName.INDEXER)
        keys = keys_of("hybrid", 8)
        for each in (pool, window, large):
            each.kv_buffer.view(torch.int16).random_(-30000, 30000)
        copies = [each.kv_buffer.clone() for each in (pool, window, large)]
        trailing = PoolHitPolicy.TRAILING_PAGES
        sets = [
            PoolTransfer(PoolName.KV, host_indices=torch.arange(0, 32), keys=keys),
            PoolTransfer(PoolName.INDEXER, host_indices=torch.arange(0, 32), keys=keys),
            PoolTransfer(PoolName.SWA, host_indices=torch.arange(0, 8), keys=keys[4:6], hit_policy=trailing),
        ]
        self.assertEqual({name: all(results) for name, results in backend.batch_set_v2(sets).items()},
                         {PoolName.KV: True, PoolName.INDEXER: True, PoolName.SWA: True})  # fmt: skip
        found = backend.batch_exists_v2(keys, [
            PoolTransfer(PoolName.INDEXER),
            PoolTransfer(PoolName.SWA, keys=keys[:2], hit_policy=trailing),
        ])  # fmt: skip
        self.assertEqual((found.kv_hit_pages, found.restorable_prefix_pages), (6, [6]))
        self.assertEqual(found.extra_pool_hit_pages, {PoolName.KV: 8, PoolName.INDEXER: 8, PoolName.SWA: 6})
        for each in (pool, window, large):
            each.kv_buffer.zero_()
        got = backend.batch_get_v2(sets)
        self.assertTrue(all(all(results) for results in got.values()))
        for each, copy, tokens in zip((pool, window, large), copies, (32, 8, 32), strict=True):
            self.assertTrue(torch.equal(each.kv_buffer.view(torch.int16)[:, :tokens], copy.view(torch.int16)[:, :tokens]))

    def two_ranks(self, mla: bool):  # type: ignore[no-untyped-def]
        first, second = (self.backend(pool_of(), rank=rank, ranks=2, mla=mla) for rank in range(2))
        keys = keys_of(f"ranks {mla}", 4)
        self.assertTrue(all(first.batch_set_v1(keys, torch.arange(0, 16))))
        self.assertEqual(first.batch_exists(keys), 4)
        return first, second, keys

    def test_ranks_do_not_meet(self) -> None:
        _, second, keys = self.two_ranks(mla=False)
        self.assertEqual(second.batch_exists(keys), 0)

    def test_replicated_pages_are_written_once_and_read_by_all(self) -> None:
        first, second, keys = self.two_ranks(mla=True)
        self.assertEqual(second.batch_exists(keys), 4)
        self.assertEqual(second.batch_get_v1(keys, torch.arange(0, 16)), [True] * 4)
        self.assertTrue(all(second.batch_set_v1(keys_of("written by none", 4), torch.arange(0, 16))))
        self.assertEqual(first.batch_exists(keys_of("written by none", 4)), 0)

    def test_another_layout_is_refused_with_both_sides_named(self) -> None:
        if self.agent is None:
            # A real agent: its first engine says how large its blocks are.
            self.assertEqual(self.backend(pool_of()).batch_exists(keys_of("first", 1)), 0)
        else:
            self.agent.refuses = Refused(0, Refusal.LAYOUT, "its kv_heads is `4`, that of engine 1 (sglang) `2`")
        backend = self.backend(pool_of(heads=4), attach_seconds=2.0)
        deadline = time.monotonic() + 60.0
        while backend._mover.client.refusal is None and time.monotonic() < deadline:
            time.sleep(0.01)
        refusal = backend._mover.client.refusal
        self.assertIsNotNone(refusal)
        self.assertEqual(refusal.code, Refusal.LAYOUT)
        if self.agent is not None:
            self.assertEqual(refusal, self.agent.refuses)
        keys = keys_of("refused", 4)
        self.assertFalse(any(backend.batch_set_v1(keys, torch.arange(0, 16))))
        self.assertEqual(backend.batch_exists(keys), 0)

    def test_two_engines_share_pages(self) -> None:
        one, two = pool_of(), pool_of()
        first, second = self.backend(one), self.backend(two)
        keys = keys_of("two engines", 4)
        one.kv_buffer.view(torch.int16).random_(-30000, 30000)
        self.assertTrue(all(first.batch_set_v1(keys, torch.arange(0, 16))))
        self.assertEqual(second.batch_get_v1(keys, torch.arange(16, 32)), [True] * 4)
        self.assertTrue(torch.equal(two.kv_buffer.view(torch.int16)[:, 16:32], one.kv_buffer.view(torch.int16)[:, :16]))

    def test_a_second_agent_gives_what_the_first_one_saved(self) -> None:
        other = os.environ.get("HOLDFAST_OTHER_SOCKET")
        if not other:
            self.skipTest("needs two agents with one store")
        one, two = pool_of(), pool_of()
        first = self.backend(one)
        self.socket = other
        second = self.backend(two)
        keys = keys_of("two agents", 6)
        one.kv_buffer.view(torch.int16).random_(-30000, 30000)
        self.assertTrue(all(first.batch_set_v1(keys, torch.arange(0, 24))))
        deadline = time.monotonic() + 20
        while second.batch_exists(keys) < 6:
            self.assertLess(time.monotonic(), deadline, "what the store has is not found")
            time.sleep(0.05)
        self.assertEqual(second.batch_get_v1(keys, torch.arange(32, 56)), [True] * 6)
        self.assertTrue(torch.equal(two.kv_buffer.view(torch.int16)[:, 32:56], one.kv_buffer.view(torch.int16)[:, :24]))

    def test_without_an_agent_everything_is_a_miss_at_once(self) -> None:
        self.socket = "/nonexistent/agent.sock"
        backend = self.backend(pool_of(), attach_seconds=0.0)
        keys = keys_of("nobody", 128)
        begun = time.monotonic()
        for _ in range(100):
            self.assertEqual(backend.batch_exists(keys), 0)
            self.assertFalse(any(backend.batch_set_v1(keys[:4], torch.arange(0, 16))))
            self.assertFalse(any(backend.batch_get_v1(keys[:4], torch.arange(0, 16))))
        self.assertLess(time.monotonic() - begun, 20.0)

    def test_an_agent_that_dies_is_a_miss_and_comes_back(self) -> None:
        if self.agent is None:
            self.skipTest("needs an agent that can be cut")
        backend = self.backend(pool_of())
        keys = keys_of("dies", 4)
        self.assertTrue(all(backend.batch_set_v1(keys, torch.arange(0, 16))))
        self.agent.cut()
        self.assertIn(backend.batch_exists(keys), (0, 4))
        self.assertTrue(self.agent.wait(lambda: backend.batch_exists(keys) == 4))

    def test_z_the_agent_is_killed_in_the_middle(self) -> None:
        process = os.environ.get("HOLDFAST_AGENT_PROCESS")
        if not process:
            self.skipTest("needs an agent that may be killed")
        backend = self.backend(pool_of())
        keys = keys_of("killed", 40)
        self.assertTrue(all(backend.batch_set_v1(keys, torch.arange(0, 160))))
        threading.Timer(0.05, os.kill, (int(process), 9)).start()
        deadline = time.monotonic() + 60
        outcomes: set[int] = set()
        while 0 not in outcomes or backend._mover.client.is_open:
            self.assertLess(time.monotonic(), deadline)
            outcomes.add(sum(backend.batch_get_v1(keys, torch.arange(0, 160))))
            backend.batch_set_v1(keys_of(str(time.monotonic()), 4), torch.arange(0, 16))
        self.assertLessEqual(outcomes, {0, 40})
        self.assertEqual(backend.batch_exists(keys), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
