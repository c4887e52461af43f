"""The tier under vLLM's real ``TieringOffloadingManager``, against the agent at ``HOLDFAST_SOCKET`` (or one in memory).

Runs where vLLM is installed; needs no GPU.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

import numpy as np
from memory_agent import MemoryAgent
from vllm.v1.kv_offload.base import LookupResult, ReqContext, ScheduleEndContext, make_offload_key
from vllm.v1.kv_offload.config import (
    OffloadingCacheConfig,
    OffloadingConfig,
    OffloadingGroupConfig,
    OffloadingModelConfig,
    OffloadingParallelConfig,
)
from vllm.v1.kv_offload.factory import OffloadingSpecFactory

from holdfast_kv.protocol import Refusal

ROW = 65536
ROWS = 64


def config(socket: str, engine: str, ranks: int = 1, **tier: object) -> OffloadingConfig:
    extra = {
        "spec_name": "TieringOffloadingSpec",
        "cpu_bytes_to_use": ROWS * ROW,
        "secondary_tiers": [{"type": "HoldfastTier", "module_path": "holdfast_kv.vllm.tier", "socket": socket, **tier}],
    }
    return OffloadingConfig(
        groups=(OffloadingGroupConfig(16, ("l0", "l1"), 0),),
        worker_kv_bytes_per_block=ROW,
        enable_kv_cache_events=True,
        extra_config=extra,
        engine_id=engine,
        model=OffloadingModelConfig("m/m", "bfloat16", 4096),
        cache=OffloadingCacheConfig(16, 1),
        parallel=OffloadingParallelConfig(0, ranks, ranks, 1, 1, 1, 0, 1, None, ranks == 1),
    )


def keys(text: str, count: int) -> list[bytes]:
    return [make_offload_key(f"{os.getpid()}{text}{number}".encode().ljust(32, b"."), 0) for number in range(count)]


class ManagerTest(unittest.TestCase):
    number = 0

    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.agent: MemoryAgent | None = None
        self.socket = os.environ.get("HOLDFAST_SOCKET", "")
        if not self.socket:
            self.socket = os.path.join(self.folder.name, "agent.sock")
            self.agent = MemoryAgent(self.socket)
            self.addCleanup(self.agent.stop)

    def manager(self, **tier: object):  # type: ignore[no-untyped-def]
        ManagerTest.number += 1
        spec = OffloadingSpecFactory.create_spec(config(self.socket, f"t{os.getpid()}-{self.number}", **tier))
        manager = spec.get_manager()
        self.addCleanup(manager.shutdown)
        return manager

    def store(self, manager, names: list[bytes], context: ReqContext, value: int) -> None:  # type: ignore[no-untyped-def]
        output = manager.prepare_store(names, context)
        rows = np.asarray(manager.primary_tier.get_kv_memoryview())
        for number, chunk in enumerate(output.store_spec.chunk_ids):
            rows[chunk, :] = value + number
        manager.complete_store(names, context)

    def step(self, manager) -> None:  # type: ignore[no-untyped-def]
        manager.on_schedule_end(ScheduleEndContext((), ()))

    def settle(self, manager, names: list[bytes], context: ReqContext) -> list[LookupResult]:  # type: ignore[no-untyped-def]
        """Steps until no look-up is deferred any more."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            results = [manager.lookup(name, context) for name in names]
            if LookupResult.RETRY not in results and LookupResult.HIT_PENDING not in results:
                return results
            self.step(manager)
            time.sleep(0.005)
        self.fail("a look-up is deferred for ever")

    def push_out(self, manager) -> None:  # type: ignore[no-untyped-def]
        """Fills the CPU region with other chunks, so that the earlier ones leave it."""
        context = ReqContext(f"other{time.monotonic_ns()}")
        manager.on_new_request(context)
        deadline = time.monotonic() + 20
        for first in range(0, ROWS, 8):
            names = keys(f"other{first}-{context.req_id}-", 8)
            while manager.prepare_store(names, context) is None:
                self.assertLess(time.monotonic(), deadline, "stores do not end")
                self.step(manager)
                time.sleep(0.005)
            manager.complete_store(names, context)
            self.step(manager)
        manager.on_request_finished(context)

    def test_chunks_come_back_from_the_agent(self) -> None:
        manager = self.manager()
        self.assertTrue(manager.secondary_tiers[0]._client.wait_open(60))
        self.assertIs(manager.secondary_tiers[0]._client.checked, True, "no block was compared at the attach")
        names = keys("a", 6)
        with manager.lock:
            context = ReqContext("r1")
            manager.on_new_request(context)
            self.assertEqual(self.settle(manager, names, context), [LookupResult.MISS] * 6)
            self.store(manager, names[:4], context, 11)
            self.step(manager)
            manager.drain_jobs() if hasattr(manager, "drain_jobs") else manager.secondary_tiers[0].drain_jobs()
            self.step(manager)
            manager.on_request_finished(context)
            self.push_out(manager)
            context = ReqContext("r2")
            manager.on_new_request(context)
            self.assertEqual(manager.primary_tier.lookup(names[0], context), LookupResult.MISS)
            found = self.settle(manager, names, context)
            self.assertEqual(found, [LookupResult.HIT] * 4 + [LookupResult.MISS] * 2)
            spec = manager.prepare_load(names[:4], context)
            rows = np.asarray(manager.primary_tier.get_kv_memoryview())
            for number, chunk in enumerate(spec.chunk_ids):
                self.assertTrue((rows[chunk] == 11 + number).all())
            manager.complete_load(names[:4], context)
            manager.on_request_finished(context)

    def test_engine_goes_on_without_an_agent(self) -> None:
        self.socket = os.path.join(self.folder.name, "nobody.sock")
        manager = self.manager()
        names = keys("b", 4)
        with manager.lock:
            context = ReqContext("r1")
            manager.on_new_request(context)
            self.assertEqual([manager.lookup(name, context) for name in names], [LookupResult.MISS] * 4)
            self.store(manager, names, context, 1)
            self.step(manager)
            self.step(manager)
            manager.on_request_finished(context)
            self.push_out(manager)

    def test_failed_promotion_is_a_miss_and_not_a_loop(self) -> None:
        if self.agent is None:
            self.skipTest("needs an agent that loses blocks on demand")
        manager = self.manager()
        self.assertTrue(manager.secondary_tiers[0]._client.wait_open(60))
        names = keys("c", 3)
        with manager.lock:
            context = ReqContext("r1")
            manager.on_new_request(context)
            self.settle(manager, names, context)
            self.store(manager, names, context, 1)
            self.step(manager)
            manager.secondary_tiers[0].drain_jobs()
            self.step(manager)
            manager.on_request_finished(context)
            self.push_out(manager)
            context = ReqContext("r2")
            manager.on_new_request(context)
            for name in names:
                manager.lookup(name, context)
            self.step(manager)
            deadline = time.monotonic() + 10
            while manager.secondary_tiers[0]._tier.look_up("r2", names[0]) is None:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.005)
            self.agent.blocks.clear()
            self.assertEqual(self.settle(manager, names, context), [LookupResult.MISS] * 3)

    def test_two_engines_of_one_agent_share_what_one_of_them_saved(self) -> None:
        first, second = self.manager(), self.manager()
        for manager in (first, second):
            self.assertTrue(manager.secondary_tiers[0]._client.wait_open(60))
        names = keys("f", 6)
        with first.lock:
            context = ReqContext("r1")
            first.on_new_request(context)
            self.settle(first, names, context)
            self.store(first, names, context, 21)
            self.step(first)
            first.secondary_tiers[0].drain_jobs()
            self.step(first)
            first.on_request_finished(context)
        with second.lock:
            context = ReqContext("r1")
            second.on_new_request(context)
            self.assertEqual(self.settle(second, names, context), [LookupResult.HIT] * 6)
            spec = second.prepare_load(names, context)
            rows = np.asarray(second.primary_tier.get_kv_memoryview())
            for number, chunk in enumerate(spec.chunk_ids):
                self.assertTrue((rows[chunk] == 21 + number).all())
            second.complete_load(names, context)
            second.on_request_finished(context)

    def test_engines_of_another_tensor_parallel_shape_do_not_meet(self) -> None:
        names = keys("g", 4)
        for ranks in (1, 2):
            manager = self.manager(ranks=ranks)
            client = manager.secondary_tiers[0]._client
            deadline = time.monotonic() + 20
            while not client.is_open and client.refusal is None:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.005)
            with manager.lock:
                context = ReqContext(f"r{ranks}")
                manager.on_new_request(context)
                self.assertEqual(self.settle(manager, names, context), [LookupResult.MISS] * 4)
                self.store(manager, names, context, ranks)
                self.step(manager)
                manager.secondary_tiers[0].drain_jobs()
                self.step(manager)
                manager.on_request_finished(context)
        if self.agent is None:
            # One agent serves one layout: the second is told both.
            self.assertEqual(client.refusal.code, Refusal.LAYOUT)
            self.assertIn(" | ", client.refusal.reason)

    def test_a_second_agent_gives_what_the_first_one_saved(self) -> None:
        other = os.environ.get("HOLDFAST_OTHER_SOCKET")
        if not other:
            self.skipTest("needs two agents with one store")
        first = self.manager()
        self.assertTrue(first.secondary_tiers[0]._client.wait_open(60))
        names = keys("e", 6)
        with first.lock:
            context = ReqContext("r1")
            first.on_new_request(context)
            self.settle(first, names, context)
            self.store(first, names, context, 31)
            self.step(first)
            first.secondary_tiers[0].drain_jobs()
            self.step(first)
            first.on_request_finished(context)
        self.socket = other
        second = self.manager()
        self.assertTrue(second.secondary_tiers[0]._client.wait_open(60))
        deadline = time.monotonic() + 20
        with second.lock:
            for attempt in range(1000):
                context = ReqContext(f"other {attempt}")
                second.on_new_request(context)
                found = self.settle(second, names, context)
                if found == [LookupResult.HIT] * 6:
                    break
                second.on_request_finished(context)
                self.assertLess(time.monotonic(), deadline, f"what the store has is not found: {found}")
                time.sleep(0.05)
            spec = second.prepare_load(names, context)
            rows = np.asarray(second.primary_tier.get_kv_memoryview())
            for number, chunk in enumerate(spec.chunk_ids):
                self.assertTrue((rows[chunk] == 31 + number).all())
            second.complete_load(names, context)
            second.on_request_finished(context)

    def test_z_an_agent_that_is_killed_in_the_middle_of_stores_and_loads(self) -> None:
        process = os.environ.get("HOLDFAST_AGENT_PROCESS")
        if not process:
            self.skipTest("needs an agent that may be killed")
        manager = self.manager()
        self.assertTrue(manager.secondary_tiers[0]._client.wait_open(60))
        client = manager.secondary_tiers[0]._client
        deadline = time.monotonic() + 60
        rounds = found = 0
        with manager.lock:
            while client.is_open or rounds < 10:
                self.assertLess(time.monotonic(), deadline)
                if rounds == 5:
                    threading.Timer(0.02, os.kill, (int(process), 9)).start()
                names = keys(f"z{rounds % 3}-", 6)
                context = ReqContext(f"z{rounds}")
                manager.on_new_request(context)
                verdicts = self.settle(manager, names, context)
                if LookupResult.MISS in verdicts:
                    output = manager.prepare_store(names, context)
                    if output is not None:
                        manager.complete_store(names, context)
                else:
                    found += 1
                self.step(manager)
                manager.on_request_finished(context)
                rounds += 1
            manager.secondary_tiers[0].drain_jobs()
            self.step(manager)
            self.assertEqual(manager.secondary_tiers[0]._tier.open_jobs, 0)
            self.assertFalse(client.is_open)
            context = ReqContext("after")
            manager.on_new_request(context)
            self.assertEqual(self.settle(manager, keys("never", 4), context), [LookupResult.MISS] * 4)
        self.assertGreater(found, 0)

    def test_agent_that_dies_in_the_middle_leaves_the_engine_running(self) -> None:
        if self.agent is None:
            self.skipTest("kills its own agent")
        manager = self.manager()
        self.assertTrue(manager.secondary_tiers[0]._client.wait_open(60))
        names = keys("d", 3)
        with manager.lock:
            context = ReqContext("r1")
            manager.on_new_request(context)
            self.settle(manager, names, context)
            self.agent.holds = True
            self.store(manager, names, context, 1)
            self.step(manager)
            self.agent.stop()
            deadline = time.monotonic() + 10
            while manager.secondary_tiers[0]._tier.open_jobs:
                self.assertLess(time.monotonic(), deadline, "a job of a dead agent does not end")
                self.step(manager)
                time.sleep(0.005)
            self.push_out(manager)
            self.assertEqual(self.settle(manager, names, context), [LookupResult.MISS] * 3)


if __name__ == "__main__":
    unittest.main()
