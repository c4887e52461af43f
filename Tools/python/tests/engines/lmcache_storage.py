"""The storage plug-in and the L2 adapter with LMCache's own buffers and keys, against the agent at ``HOLDFAST_SOCKET`` (or
one in memory). Runs where LMCache is installed; needs no GPU."""

from __future__ import annotations

import asyncio
import copy
import os
import select
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

import readme
import torch
import yaml
from lmcache.utils import CacheEngineKey
from lmcache.v1.config import LMCacheEngineConfig
from lmcache.v1.distributed.api import MemoryLayoutDesc, ObjectKey
from lmcache.v1.distributed.config import L1MemoryManagerConfig
from lmcache.v1.distributed.l2_adapters import create_l2_adapter
from lmcache.v1.distributed.l2_adapters.plugin_l2_adapter import PluginL2AdapterConfig
from lmcache.v1.distributed.memory_manager.l1_memory_manager import L1MemoryManager
from lmcache.v1.metadata import LMCacheMetadata
from lmcache.v1.storage_backend import storage_plugin_launcher
from lmcache.v1.storage_backend.local_cpu_backend import LocalCPUBackend
from memory_agent import MemoryAgent

from holdfast_kv.lmcache.l2 import HoldfastL2
from holdfast_kv.lmcache.storage import HoldfastStorage

CHUNK = 64
SHAPE = (4, 2, CHUNK, 2, 32)


class Agents(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.socket = os.environ.get("HOLDFAST_SOCKET", "")
        self.agent: MemoryAgent | None = None
        if not self.socket:
            self.socket = os.path.join(self.folder.name, "agent.sock")
            self.agent = MemoryAgent(self.socket)
            self.addCleanup(self.agent.stop)
        self.config = LMCacheEngineConfig.from_defaults(
            chunk_size=CHUNK,
            local_cpu=True,
            max_local_cpu_size=0.1,
            extra_config={"holdfast.socket": self.socket, "holdfast.staging_bytes": 8 << 20},
        )
        self.metadata = LMCacheMetadata(
            model_name="m/m", world_size=1, local_world_size=1, worker_id=0, local_worker_id=0,
            kv_dtype=torch.bfloat16, kv_shape=SHAPE, chunk_size=CHUNK,
        )  # fmt: skip
        self.cpu = LocalCPUBackend(self.config, self.metadata, dst_device="cpu")

    def buffer(self, value: int):  # type: ignore[no-untyped-def]
        thing = self.cpu.allocate(self.metadata.get_shapes(), self.metadata.get_dtypes())
        self.assertIsNotNone(thing)
        memoryview(thing.byte_array).cast("B")[: thing.get_size()] = bytes([value]) * thing.get_size()
        return thing

    def byte(self, thing) -> set[int]:  # type: ignore[no-untyped-def]
        return set(memoryview(thing.byte_array).cast("B")[: thing.get_size()])


class StorageTest(Agents):
    def setUp(self) -> None:
        super().setUp()
        self.storage = HoldfastStorage(self.config, self.metadata, self.cpu, asyncio.new_event_loop())
        self.addCleanup(self.storage.close)
        self.assertTrue(self.storage._link.client.wait_open(60))

    def keys(self, text: str, count: int) -> list[CacheEngineKey]:
        return [
            CacheEngineKey("m/m", 1, 0, hash((os.getpid(), text, number)) & (1 << 62) - 1, torch.bfloat16)
            for number in range(count)
        ]

    def test_chunks_come_back(self) -> None:
        keys = self.keys("a", 40)
        told: list[CacheEngineKey] = []
        things = [self.buffer(number + 1) for number in range(40)]
        counts = [thing.get_ref_count() for thing in things]
        futures = self.storage.batched_submit_put_task(keys, things, on_complete_callback=told.append)
        assert futures is not None
        for future in futures:
            future.result(60)
        self.assertEqual(len(told), 40)
        self.assertEqual([thing.get_ref_count() for thing in things], counts)
        self.assertFalse(self.storage.exists_in_put_tasks(keys[0]))
        self.assertEqual(self.storage.batched_contains(keys), 40)
        got = self.storage.batched_get_blocking(keys)
        self.assertEqual([self.byte(thing) for thing in got], [{number + 1} for number in range(40)])
        self.assertEqual(asyncio.run(self.storage.batched_async_contains("x", keys)), 40)
        # One copy each way, by this process: the agent moved none of it.
        self.assertEqual((self.storage._link.written_in_place, self.storage._link.read_in_place), (40, 40))

    def test_lmcache_makes_the_plug_in_that_the_readme_configures(self) -> None:
        written = yaml.safe_load(readme.block("storage_plugins:"))
        config = copy.copy(self.config)
        config.storage_plugins = written["storage_plugins"]
        config.extra_config = written["extra_config"] | {"holdfast.socket": self.socket}
        made: dict[str, object] = {}
        storage_plugin_launcher(config, self.metadata, asyncio.new_event_loop(), self.cpu, "cpu", made)
        (storage,) = made.values()
        self.assertIsInstance(storage, HoldfastStorage)
        self.addCleanup(storage.close)
        self.assertTrue(storage._link.client.wait_open(60))
        keys = self.keys("configured", 3)
        for future in storage.batched_submit_put_task(keys, [self.buffer(number + 1) for number in range(3)]) or []:
            future.result(60)
        got = storage.batched_get_blocking(keys)
        self.assertEqual([self.byte(thing) for thing in got], [{number + 1} for number in range(3)])

    def test_what_was_never_put_is_absent(self) -> None:
        keys = self.keys("b", 3)
        self.assertEqual(self.storage.batched_contains(keys), 0)
        self.assertIsNone(self.storage.get_blocking(keys[0]))

    def test_pins_are_taken_back(self) -> None:
        keys = self.keys("c", 1)
        for future in self.storage.batched_submit_put_task(keys, [self.buffer(9)]) or []:
            future.result(60)
        self.storage.pin(keys[0])
        self.storage.unpin(keys[0])
        self.assertFalse(self.storage.unpin(keys[0]))


class ZKilledTest(Agents):
    """The last: its agent is killed in the middle, and both plug-ins go on."""

    def test_the_agent_is_killed_in_the_middle(self) -> None:
        process = os.environ.get("HOLDFAST_AGENT_PROCESS")
        if not process:
            self.skipTest("needs an agent that may be killed")
        storage = HoldfastStorage(self.config, self.metadata, self.cpu, asyncio.new_event_loop())
        self.addCleanup(storage.close)
        self.assertTrue(storage._link.client.wait_open(60))
        adapter = HoldfastL2({"socket": self.socket, "staging_bytes": 8 << 20, "chunk_tokens": CHUNK})
        self.addCleanup(adapter.close)
        keys = [CacheEngineKey("m/m", 1, 0, hash((os.getpid(), "killed", n)) & (1 << 62) - 1, torch.bfloat16) for n in range(20)]
        objects = [ObjectKey(f"{os.getpid()}killed{n}".encode().ljust(32, b"."), "m/m", 0x01000100) for n in range(20)]
        things = [self.buffer(number + 1) for number in range(20)]
        counts = [thing.get_ref_count() for thing in things]
        deadline = time.monotonic() + 60
        came: set[int] = set()
        killer: threading.Timer | None = None
        while 0 not in came or storage._link.client.is_open or adapter._link is None or adapter._link.client.is_open:
            self.assertLess(time.monotonic(), deadline, f"came: {came}")
            if killer is None and 20 in came:
                killer = threading.Timer(0.05, os.kill, (int(process), 9))
                killer.start()
            for future in storage.batched_submit_put_task(keys, things) or []:
                future.result(60)
            got = storage.batched_get_blocking(keys)
            came.add(sum(thing is not None for thing in got))
            for number, thing in enumerate(got):
                if thing is not None:
                    self.assertEqual(self.byte(thing), {number + 1})
                    thing.ref_count_down()
            task = adapter.submit_store_task(objects, things)
            self.wait(adapter.get_store_event_fd())
            self.assertIn(task, adapter.pop_completed_store_tasks())
            task = adapter.submit_load_task(objects, things)
            self.wait(adapter.get_load_event_fd())
            adapter.query_load_result(task)
        self.assertIn(20, came)
        self.assertIn(0, came)
        self.assertEqual([thing.get_ref_count() for thing in things], counts)
        self.assertEqual(storage.batched_contains(keys), 0)
        self.assertEqual([self.byte(thing) for thing in things], [{number + 1} for number in range(20)])

    def wait(self, event: int) -> None:
        ready, _, _ = select.select([event], [], [], 40)
        self.assertTrue(ready, "an event descriptor stays silent")
        os.eventfd_read(event)


class AdapterTest(Agents):
    def setUp(self) -> None:
        super().setUp()
        self.adapter = HoldfastL2({"socket": self.socket, "staging_bytes": 8 << 20, "chunk_tokens": CHUNK})
        self.addCleanup(self.adapter.close)
        self.layout = {0: MemoryLayoutDesc(self.metadata.get_shapes(), self.metadata.get_dtypes())}

    def keys(self, text: str, count: int, rank: int = 0x01000100) -> list[ObjectKey]:
        return [ObjectKey(f"{os.getpid()}{text}{n}".encode().ljust(32, b"."), "m/m", rank) for n in range(count)]

    def wait(self, event: int) -> None:
        ready, _, _ = select.select([event], [], [], 20)
        self.assertTrue(ready, "an event descriptor stays silent")
        os.eventfd_read(event)

    def store(self, keys: list[ObjectKey]) -> bool:
        things = [self.buffer(number + 1) for number in range(len(keys))]
        return self.store_things(keys, things)

    def store_things(self, keys: list[ObjectKey], things: list) -> bool:  # type: ignore[type-arg]
        task = self.adapter.submit_store_task(keys, things)
        self.wait(self.adapter.get_store_event_fd())
        return self.adapter.pop_completed_store_tasks()[task].is_successful()

    def look_up(self, keys: list[ObjectKey]) -> list[bool]:
        task = self.adapter.submit_lookup_and_lock_task(keys, self.layout)
        self.wait(self.adapter.get_lookup_and_lock_event_fd())
        bits = self.adapter.query_lookup_and_lock_result(task)
        self.assertIsNone(self.adapter.query_lookup_and_lock_result(task))
        return [bits.test(at) for at in range(len(keys))]

    def load(self, keys: list[ObjectKey]) -> list[set[int] | None]:
        things = [self.buffer(0) for _ in keys]
        task = self.adapter.submit_load_task(keys, things)
        self.wait(self.adapter.get_load_event_fd())
        bits = self.adapter.query_load_result(task)
        return [self.byte(thing) if bits.test(at) else None for at, thing in enumerate(things)]

    def test_a_second_agent_gives_what_the_first_one_saved(self) -> None:
        other = os.environ.get("HOLDFAST_OTHER_SOCKET")
        if not other:
            self.skipTest("needs two agents with one store")
        self.connected()
        keys = self.keys("two agents", 6)
        self.assertTrue(self.store(keys))
        self.adapter = HoldfastL2({"socket": other, "staging_bytes": 8 << 20, "chunk_tokens": CHUNK})
        self.addCleanup(self.adapter.close)
        self.connected()
        deadline = time.monotonic() + 20
        while self.look_up(keys) != [True] * 6:
            self.adapter.submit_unlock(keys)
            self.assertLess(time.monotonic(), deadline, "what the store has is not found")
            time.sleep(0.05)
        self.assertEqual(self.load(keys), [{number + 1} for number in range(6)])
        self.adapter.submit_unlock(keys)

    def test_two_engines_of_one_agent_share_what_one_of_them_saved(self) -> None:
        self.connected()
        keys = self.keys("two engines", 6)
        self.assertTrue(self.store(keys))
        self.adapter = HoldfastL2({"socket": self.socket, "staging_bytes": 8 << 20, "chunk_tokens": CHUNK})
        self.addCleanup(self.adapter.close)
        self.connected()
        self.assertEqual(self.look_up(keys), [True] * 6)
        self.assertEqual(self.load(keys), [{number + 1} for number in range(6)])
        self.adapter.submit_unlock(keys)

    def connected(self) -> None:
        self.look_up(self.keys("none", 1))
        assert self.adapter._link is not None
        self.assertTrue(self.adapter._link.client.wait_open(60))
        self.assertIs(self.adapter._link.client.checked, True, "no block was compared at the attach")

    def test_objects_come_back_rank_by_rank(self) -> None:
        self.connected()
        link = self.adapter._link
        ranks = self.keys("a", 20, 0x02000200) + self.keys("a", 20, 0x02010201)
        self.assertTrue(self.store(ranks))
        more = self.keys("b", 1)
        self.assertEqual(self.look_up(ranks + more), [True] * 40 + [False])
        self.assertEqual(self.load(ranks), [{number + 1} for number in range(40)])
        self.adapter.submit_unlock(ranks)
        # One copy each way, between LMCache's buffers and the agent's arena.
        self.assertEqual((link.written_in_place, link.read_in_place), (40, 40))

    def test_the_agent_moves_objects_of_a_shared_arena_itself(self) -> None:
        # The server's own memory manager and factory: what --no-l1-use-lazy and the README's --l2-adapter make.
        (plugin,) = readme.configurations("--l2-adapter")
        plugin["adapter_params"] |= {"socket": self.socket, "chunk_tokens": CHUNK}
        config = L1MemoryManagerConfig(size_in_bytes=32 << 20, use_lazy=False)
        self.assertTrue(config.shm_name, "LMCache does not share its L1 memory by itself any more")
        l1 = L1MemoryManager(config)
        self.addCleanup(l1.close)
        self.adapter = create_l2_adapter(PluginL2AdapterConfig.from_dict(plugin), l1_memory_desc=l1.get_l1_memory_desc())
        self.addCleanup(self.adapter.close)
        self.connected()
        self.assertIsNone(self.adapter._link.staging, "objects are copied here")
        _, things = l1.allocate(self.layout[0], 12)
        for number, thing in enumerate(things):
            memoryview(thing.byte_array).cast("B")[: thing.get_size()] = bytes([number + 1]) * thing.get_size()
        keys = self.keys("in place", 12)
        self.assertTrue(self.store_things(keys, things))
        into = things[::-1]
        task = self.adapter.submit_load_task(keys, into)
        self.wait(self.adapter.get_load_event_fd())
        bits = self.adapter.query_load_result(task)
        self.assertEqual([bits.test(at) for at in range(12)], [True] * 12)
        self.assertEqual([self.byte(thing) for thing in into], [{number + 1} for number in range(12)])
        self.assertEqual((self.adapter._link.written_in_place, self.adapter._link.read_in_place), (0, 0))

    def test_objects_that_are_not_handed_over_are_staged(self) -> None:
        self.adapter = HoldfastL2(
            {"socket": self.socket, "staging_bytes": 1, "chunk_tokens": CHUNK, "hand_over": False}
        )
        self.addCleanup(self.adapter.close)
        self.connected()
        keys = self.keys("staged", 50)
        self.assertTrue(self.store(keys))
        self.assertEqual(self.load(keys), [{number + 1} for number in range(50)])
        self.assertEqual((self.adapter._link.written_in_place, self.adapter._link.read_in_place), (0, 0))

    def test_without_agent_all_ends_at_once(self) -> None:
        if self.agent is None:
            self.skipTest("stops its own agent")
        self.connected()
        self.agent.stop()
        keys = self.keys("c", 3)
        self.assertFalse(self.store(keys))
        self.assertEqual(self.look_up(keys), [False] * 3)
        self.assertEqual(self.load(keys), [None] * 3)


if __name__ == "__main__":
    unittest.main()
