"""LMCache's plug-ins against an agent in memory: what they promise LMCache's controllers, whatever the agent does.

On the stand-in of ``stubs.lmcache`` where LMCache is not installed, on the real package where it is. Buffers and keys are of
this file; LMCache's own are in ``engines/lmcache_storage.py``.
"""

from __future__ import annotations

import asyncio
import ctypes
import math
import mmap
import os
import select
import sys
import tempfile
import threading
import time
import unittest
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import stubs.lmcache
from memory_agent import AgentTest

if not stubs.is_installed("lmcache"):
    stubs.lmcache.install()

from holdfast_kv import protocol as p
from holdfast_kv.lmcache.l2 import HoldfastL2
from holdfast_kv.lmcache.storage import HoldfastStorage

SIZE = 8192
#: A chunk of 16 tokens, as LMCache shapes it: keys and values, layers, tokens, all heads of a token.
SHAPE = (2, 2, 16, 64)


class Shape(tuple[int, ...]):
    """What plug-ins read of torch's sizes."""

    def numel(self) -> int:
        return math.prod(self)


class Dtype(NamedTuple):
    """What plug-ins read of torch's dtypes."""

    name: str
    itemsize: int

    def __str__(self) -> str:
        return f"torch.{self.name}"


BFLOAT16, FLOAT16, UINT8 = Dtype("bfloat16", 2), Dtype("float16", 2), Dtype("uint8", 1)


def layout_of(dtype: Dtype = BFLOAT16, shape: tuple[int, ...] = SHAPE) -> dict[int, Any]:
    """What LMCache says of its one group of objects at a look-up."""
    return {0: SimpleNamespace(shapes=[Shape(shape)], dtypes=[dtype])}


class Key(NamedTuple):
    """What plug-ins read of LMCache's keys, of the server and of the engine."""

    chunk_hash: bytes
    model_name: str = "m/m"
    kv_rank: int = 0x01000100
    object_group_id: int = 0
    cache_salt: str = ""
    world_size: int = 1
    worker_id: int = 0
    dtype: str = "bfloat16"
    tags: None = None


def keys(text: str, count: int, **more: Any) -> list[Key]:
    return [Key(f"{text}{number}".encode().ljust(32, b"."), **more) for number in range(count)]


class Thing:
    """A buffer of LMCache's."""

    def __init__(self, address: int, size: int = SIZE, dtype: Dtype = BFLOAT16, shape: tuple[int, ...] = SHAPE) -> None:
        self.data_ptr = address
        self.size = size
        self.metadata = SimpleNamespace(shape=Shape(shape), dtype=dtype, shapes=None, dtypes=None)
        self.references = 1

    @classmethod
    def new(cls, value: int = 0, size: int = SIZE, **more: Any) -> Thing:
        """One that is full of a byte."""
        memory = ctypes.create_string_buffer(bytes([value]) * size, size)
        thing = cls(ctypes.addressof(memory), size, **more)
        thing.memory = memory  # type: ignore[attr-defined]
        return thing

    def get_size(self) -> int:
        return self.size

    def ref_count_up(self) -> None:
        self.references += 1

    def ref_count_down(self) -> None:
        self.references -= 1

    def fill(self, value: int) -> None:
        ctypes.memset(self.data_ptr, value, self.size)

    @property
    def byte(self) -> int:
        """The byte that it is full of; -1 when there are several."""
        found = set(ctypes.string_at(self.data_ptr, self.size))
        return found.pop() if len(found) == 1 else -1


def things(count: int) -> list[Thing]:
    return [Thing.new(number + 1) for number in range(count)]


class Agents(AgentTest):
    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), deadline, "it does not come to pass")
            time.sleep(0.001)


    def asked(self, kind: type[p.LookUp] | type[p.Take]) -> list[int]:
        """The requests that frames of a kind name, in order."""
        named = [frame for frame in self.agent.heard if isinstance(frame, kind)]
        return [frame.request if isinstance(frame, p.Take) else frame.ticket for frame in named]


class AdapterTest(Agents):
    def adapter(self, l1: Any = None, *, dtype: Dtype = BFLOAT16, shape: tuple[int, ...] = SHAPE, **more: Any) -> HoldfastL2:
        params = {"socket": self.socket, "staging_bytes": 16 * SIZE, "lookup_deadline": 15.0} | more
        adapter = HoldfastL2(params, l1)
        self.addCleanup(adapter.close)
        adapter.submit_lookup_and_lock_task([], layout_of(dtype, shape))
        self.wait(adapter.get_lookup_and_lock_event_fd())
        assert adapter._link is not None
        self.assertTrue(adapter._link.client.wait_open(15))
        return adapter

    def wait(self, event: int) -> None:
        self.assertTrue(select.select([event], [], [], 20)[0], "an event descriptor stays silent")
        os.eventfd_read(event)

    def store(self, adapter: HoldfastL2, names: list[Key], objects: list[Thing]) -> bool:
        task = adapter.submit_store_task(names, objects)
        self.wait(adapter.get_store_event_fd())
        ended = adapter.pop_completed_store_tasks()
        self.assertEqual(list(ended), [task])
        self.assertEqual(adapter.pop_completed_store_tasks(), {}, "an end is told twice")
        return bool(ended[task].is_successful())

    def look_up(self, adapter: HoldfastL2, names: list[Key], layout: dict[int, Any] | None = None) -> list[bool]:
        task = adapter.submit_lookup_and_lock_task(names, layout or {})
        self.wait(adapter.get_lookup_and_lock_event_fd())
        bits = adapter.query_lookup_and_lock_result(task)
        self.assertIsNone(adapter.query_lookup_and_lock_result(task), "an answer is given twice")
        return [bits.test(at) for at in range(len(names))]

    def load(self, adapter: HoldfastL2, names: list[Key], objects: list[Thing] | None = None) -> list[int | None]:
        """The bytes that objects are full of, None where the result says that they did not come."""
        into = objects or [Thing.new() for _ in names]
        task = adapter.submit_load_task(names, into)
        self.wait(adapter.get_load_event_fd())
        bits = adapter.query_load_result(task)
        self.assertIsNone(adapter.query_load_result(task), "a result is given twice")
        return [thing.byte if bits.test(at) else None for at, thing in enumerate(into)]

    def test_each_kind_of_end_has_a_descriptor_of_its_own(self) -> None:
        adapter = self.adapter()
        events = {adapter.get_store_event_fd(), adapter.get_lookup_and_lock_event_fd(), adapter.get_load_event_fd()}
        self.assertEqual(len(events), 3)

    def test_objects_come_back_copied_once(self) -> None:
        adapter, names = self.adapter(), keys("a", 20)
        self.assertEqual(self.look_up(adapter, names), [False] * 20)
        self.assertTrue(self.store(adapter, names, things(20)))
        self.assertEqual(self.look_up(adapter, [*names, *keys("b", 1)]), [True] * 20 + [False])
        self.assertEqual(self.load(adapter, names), list(range(1, 21)))
        assert adapter._link is not None
        self.assertEqual((adapter._link.written_in_place, adapter._link.read_in_place), (20, 20))

    def test_slots_are_asked_for_a_piece_ahead_and_none_stays_reserved(self) -> None:
        adapter, names = self.adapter(), keys("a", 10)
        assert adapter._link is not None
        adapter._link.piece = 4
        for _ in range(3):
            self.assertTrue(self.store(adapter, names, things(10)))
        self.assertEqual(self.load(adapter, names), list(range(1, 11)))
        asked = [frame.slots for frame in self.agent.heard if isinstance(frame, p.Reserve)]
        self.assertEqual(asked, [4, 4, 2] * 3)
        self.assertEqual(adapter._link.written_in_place, 30)
        self.assertTrue(adapter._link.client.ping().result(15))
        self.assertEqual([peer.arena.loans for peer in self.agent._peers if peer.arena is not None], [{}])

    def test_objects_are_staged_where_nothing_is_handed_over(self) -> None:
        adapter, names = self.adapter(hand_over=False, staging_bytes=1), keys("a", 40)
        self.assertTrue(self.store(adapter, names, things(40)))
        self.assertEqual(self.load(adapter, names), list(range(1, 41)))
        assert adapter._link is not None
        self.assertEqual((adapter._link.written_in_place, adapter._link.read_in_place), (0, 0))

    def test_the_agent_moves_objects_of_a_shared_arena_itself(self) -> None:
        with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
            file.truncate(17 * SIZE)
            # The arena begins behind other things in its file.
            mapped = mmap.mmap(file.fileno(), 16 * SIZE, offset=SIZE)
            base = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
            objects = [Thing(base + at * SIZE) for at in range(10)]
            for number, thing in enumerate(objects):
                thing.fill(number + 1)
            adapter, names = self.adapter(SimpleNamespace(ptr=base, size=16 * SIZE)), keys("a", 10)
            link = adapter._link
            assert link is not None
            self.assertIsNone(link.staging)
            self.assertTrue(self.store(adapter, names, objects))
            for thing in objects:
                thing.fill(0)
            self.assertEqual(self.load(adapter, names, objects[::-1]), list(range(1, 11)))
            self.assertEqual((link.written_in_place, link.read_in_place), (0, 0))

    def test_memory_that_cannot_be_shared_is_copied(self) -> None:
        arena = ctypes.create_string_buffer(4 * SIZE)
        adapter = self.adapter(SimpleNamespace(ptr=ctypes.addressof(arena), size=4 * SIZE))
        self.assertTrue(self.store(adapter, keys("a", 4), things(4)))
        self.assertEqual(self.load(adapter, keys("a", 4)), [1, 2, 3, 4])

    def test_models_ranks_groups_and_salts_do_not_meet(self) -> None:
        adapter = self.adapter()
        variants: list[dict[str, Any]] = [
            {}, {"model_name": "m/n"}, {"kv_rank": 0x02010201}, {"object_group_id": 1}, {"cache_salt": "u1"},
        ]  # fmt: skip
        names = [keys("a", 1, **each)[0] for each in variants]
        for number, name in enumerate(names):
            self.assertEqual(self.look_up(adapter, [name]), [False], variants[number])
            self.assertTrue(self.store(adapter, [name], [Thing.new(number + 1)]))
        self.assertEqual(self.load(adapter, names), [1, 2, 3, 4, 5])

    def test_a_prompt_of_many_ranks_is_one_prompt(self) -> None:
        adapter = self.adapter()
        self.look_up(adapter, [*keys("a", 3, kv_rank=0x02000200), *keys("a", 3, kv_rank=0x02010201)])
        asked = [frame.prompt_tokens for frame in self.agent.heard if isinstance(frame, p.LookUp)]
        self.assertEqual(asked[-2:], [48, 0])

    def test_the_same_bytes_in_another_dtype_or_shape_do_not_meet(self) -> None:
        names = keys("a", 2)
        self.assertTrue(self.store(self.adapter(), names, things(2)))
        for more in ({"dtype": FLOAT16}, {"shape": (1, 4, 16, 64)}, {"dtype": UINT8, "shape": (2, 2, 16, 128)}):
            # The same server: what it says at a look-up counts, and what its buffers say.
            adapter = self.adapter()
            self.assertEqual(self.look_up(adapter, names, layout_of()), [True] * 2)
            self.assertEqual(self.look_up(adapter, names, layout_of(**more)), [False] * 2)
            self.assertEqual(self.load(adapter, names, [Thing.new(**more) for _ in names]), [None] * 2)
            # Another server with the same model's name.
            other = self.adapter(**more)
            self.assertEqual(self.look_up(other, names), [False] * 2)
            self.assertEqual(self.load(other, names, [Thing.new(**more) for _ in names]), [None] * 2)
        self.assertEqual(self.load(self.adapter(), names), [1, 2])

    def test_the_namespace_is_what_lmcache_says_of_its_objects(self) -> None:
        self.adapter()
        fields = dict(self.agent.hellos[-1].fields)
        said = {"kv_dtype": "bfloat16", "kv_scales": "", "layers": "2", "block_tokens": "16", "shapes": "bfloat16:2x2x16x64"}
        self.assertEqual({name: fields[name] for name in said}, said)
        self.adapter(dtype=UINT8, shape=(2, 2, 16, 128), kv_dtype="fp8_e5m2", tokenizer="t", revision="r", chunk_tokens=32)
        fields = dict(self.agent.hellos[-1].fields)
        said = {"kv_dtype": "fp8_e5m2", "kv_scales": "checkpoint", "tokenizer": "t", "revision": "r", "block_tokens": "32"}
        self.assertEqual({name: fields[name] for name in said}, said)

    def test_bytes_of_which_nobody_says_the_dtype_are_of_use_to_their_process_alone(self) -> None:
        opaque: dict[str, Any] = {"dtype": UINT8, "shape": (2, 2, 16, 128)}
        names = keys("a", 2)

        def keeps(**more: Any) -> list[int | None]:
            self.assertTrue(self.store(self.adapter(**opaque, **more), names, [Thing.new(n + 1, **opaque) for n in range(2)]))
            return finds(**more)

        def finds(**more: Any) -> list[int | None]:
            return self.load(self.adapter(**opaque, **more), names, [Thing.new(**opaque) for _ in names])

        self.assertEqual(keeps(), [1, 2])
        self.assertEqual(finds(kv_dtype="fp8_e4m3"), [None] * 2)
        self.assertEqual(keeps(kv_dtype="fp8_e4m3"), [1, 2])
        with unittest.mock.patch("holdfast_kv.lmcache.link._PROCESS", "another"):
            self.assertEqual(finds(), [None] * 2)
            self.assertEqual(finds(kv_dtype="fp8_e5m2"), [None] * 2)
            self.assertEqual(finds(kv_dtype="fp8_e4m3", kv_scales="of another calibration"), [None] * 2)
            self.assertEqual(finds(kv_dtype="fp8_e4m3"), [1, 2])

    def test_what_is_found_is_looked_after_until_it_is_unlocked(self) -> None:
        adapter, names = self.adapter(), keys("a", 3)
        self.store(adapter, names, things(3))
        self.look_up(adapter, names)
        assert adapter._link is not None
        self.assertTrue(adapter._link.client.ping().result(15))
        self.assertEqual(self.agent.ends, [])
        adapter.submit_unlock(names)
        self.until(lambda: len(self.agent.ends) == 1)

    def test_loads_name_the_look_up_that_found_them(self) -> None:
        adapter = self.adapter()
        assert adapter._link is not None
        adapter._link.piece = 4
        names = [*keys("a", 6, kv_rank=0x02000200), *keys("a", 2, kv_rank=0x02010201)]
        self.store(adapter, names, things(8))
        # Two prompts of the same chunks.
        for _ in range(2):
            self.look_up(adapter, names)
        one, other = self.asked(p.LookUp)[-4:-2], self.asked(p.LookUp)[-2:]
        for tickets in (one, other):
            self.assertEqual(self.load(adapter, names), list(range(1, 9)))
            self.assertEqual(self.asked(p.Take)[-3:], [tickets[0], tickets[0], tickets[1]])
        # One more than was asked for is nobody's.
        self.load(adapter, names)
        self.assertEqual(self.asked(p.Take)[-3:], [0, 0, 0])
        self.assertEqual(self.agent.ends, [])
        adapter.submit_unlock(names)
        self.until(lambda: {end.ticket for end in self.agent.ends} == {*one, *other})
        self.assertEqual(adapter._unloaded, {})

    def test_of_a_load_that_fails_in_the_middle_the_front_is_used(self) -> None:
        adapter, names = self.adapter(), keys("a", 6)
        self.store(adapter, names, things(6))
        self.agent.drop(list(self.agent.blocks)[4:])
        self.assertEqual(self.load(adapter, names), [1, 2, 3, 4, None, None])

    def test_objects_of_another_size_are_not_kept(self) -> None:
        adapter = self.adapter()
        self.assertFalse(self.store(adapter, keys("a", 1), [Thing.new(1, SIZE // 2)]))
        self.assertEqual(self.agent.blocks, {})

    def test_every_task_ends_when_the_agent_dies(self) -> None:
        adapter, names = self.adapter(), keys("a", 4)
        self.store(adapter, names, things(4))
        self.agent.holds = True
        objects = [Thing.new(9) for _ in names]
        loading = adapter.submit_load_task(names, objects)
        storing = adapter.submit_store_task(keys("b", 4), things(4))
        self.until(lambda: len(self.agent.held) >= 2)
        self.agent.stop()
        self.wait(adapter.get_load_event_fd())
        self.wait(adapter.get_store_event_fd())
        self.assertEqual(adapter.query_load_result(loading).popcount(), 0)
        self.assertFalse(adapter.pop_completed_store_tasks()[storing].is_successful())
        self.assertEqual([thing.byte for thing in objects], [9] * 4)
        # And what comes behind it ends at once.
        self.assertFalse(self.store(adapter, names, things(4)))
        self.assertEqual(self.look_up(adapter, names), [False] * 4)
        self.assertEqual(self.load(adapter, names), [None] * 4)

    def test_two_controllers_may_ask_at_once(self) -> None:
        adapter = self.adapter()
        wrong: list[object] = []
        ends: dict[int, bool] = {}

        def store() -> None:
            tasks = {adapter.submit_store_task(keys(f"s{number}-", 2), things(2)) for number in range(40)}
            while tasks - ends.keys():
                if not select.select([adapter.get_store_event_fd()], [], [], 20)[0]:
                    wrong.append("stores do not end")
                    return
                os.eventfd_read(adapter.get_store_event_fd())
                ends.update({task: end.is_successful() for task, end in adapter.pop_completed_store_tasks().items()})

        storer = threading.Thread(target=store)
        storer.start()
        for number in range(40):
            self.look_up(adapter, keys(f"l{number}-", 3))
            self.load(adapter, keys(f"l{number}-", 3))
        storer.join(30)
        self.assertEqual((wrong, set(ends.values()), len(ends)), ([], {True}, 40))

    def test_closing_twice_is_closing_once(self) -> None:
        adapter = self.adapter()
        adapter.close()
        adapter.close()


class StorageTest(Agents):
    def setUp(self) -> None:
        super().setUp()
        self.given: list[Thing] = []
        self.room = 1000

        def allocate(shapes: Any, dtypes: Any) -> Thing | None:
            if len(self.given) >= self.room:
                return None
            self.given.append(Thing.new())
            return self.given[-1]

        self.cpu = SimpleNamespace(get_full_chunk_size_bytes=lambda: SIZE, allocate=allocate)
        self.storage = self.engine()

    def engine(self, dtype: Dtype = BFLOAT16, heads: int = 4, **more: Any) -> HoldfastStorage:
        extra = {"holdfast.socket": self.socket, "holdfast.staging_bytes": 16 * SIZE, "holdfast.lookup_deadline": 15.0} | more
        config = SimpleNamespace(extra_config=extra, chunk_size=16, use_layerwise=False)
        metadata = SimpleNamespace(
            get_shapes=lambda: [Shape(SHAPE)], get_dtypes=lambda: [dtype], kv_shape=(2, 2, 16, heads, 64 // heads)
        )
        storage = HoldfastStorage(config, metadata, self.cpu, asyncio.new_event_loop())
        self.addCleanup(storage.close)
        self.assertTrue(storage._link.client.wait_open(15))
        return storage

    def put(self, names: list[Key], objects: list[Thing]) -> list[Key]:
        """The keys that LMCache is told of."""
        told: list[Key] = []
        for future in self.storage.batched_submit_put_task(names, objects, on_complete_callback=told.append) or []:
            future.result(20)
        self.until(lambda: not any(self.storage.exists_in_put_tasks(name) for name in names))
        return told

    def test_chunks_come_back_and_their_buffers_are_let_go(self) -> None:
        names, objects = keys("a", 12), things(12)
        self.assertEqual(self.put(names, objects), names)
        self.until(lambda: {thing.references for thing in objects} == {1})
        self.assertEqual(self.storage.batched_contains([*names, *keys("b", 2)]), 12)
        self.assertTrue(self.storage.contains(names[0]))
        got = self.storage.batched_get_blocking(names)
        self.assertEqual([thing.byte for thing in got if thing is not None], list(range(1, 13)))
        self.assertEqual(asyncio.run(self.storage.batched_async_contains("x", names)), 12)
        leading = asyncio.run(self.storage.batched_get_non_blocking("x", [*names[:3], *keys("c", 1), names[4]]))
        self.assertEqual([thing.byte for thing in leading], [1, 2, 3])

    def test_a_look_up_ends_behind_the_loads_of_what_it_found(self) -> None:
        names = keys("a", 6)
        self.put(names, things(6))
        self.storage._link.piece = 4
        self.assertEqual(self.storage.batched_contains([*names, *keys("b", 1)]), 6)
        (ticket,) = self.asked(p.LookUp)
        self.assertEqual(self.agent.ends, [])
        self.storage.batched_get_blocking(names)
        self.assertEqual(self.asked(p.Take), [ticket, ticket])
        self.until(lambda: [end.ticket for end in self.agent.ends] == [ticket])
        # What found nothing ends at once, and what is not loaded with the connection.
        self.storage.batched_contains(keys("b", 1))
        self.until(lambda: len(self.agent.ends) == 2)
        self.storage.batched_contains(names)
        self.storage.close()
        self.until(lambda: len(self.agent.ends) == 3)

    def test_what_lmcache_has_no_room_for_is_not_loaded(self) -> None:
        names = keys("a", 6)
        self.put(names, things(6))
        self.room = 4
        got = self.storage.batched_get_blocking(names)
        self.assertEqual([thing.byte if thing else None for thing in got], [1, 2, 3, 4, None, None])

    def test_buffers_of_what_did_not_come_are_given_back(self) -> None:
        self.assertEqual(self.storage.batched_get_blocking(keys("none", 3)), [None] * 3)
        self.assertEqual([thing.references for thing in self.given], [0] * 3)

    def test_workers_models_and_dtypes_do_not_meet(self) -> None:
        variants: list[dict[str, Any]] = [{}, {"model_name": "m/n"}, {"worker_id": 1, "world_size": 2}, {"dtype": "float16"}]
        names = [keys("a", 1, **each) for each in variants]
        for number, name in enumerate(names):
            self.assertEqual(self.storage.batched_contains(name), 0, variants[number])
            self.put(name, [Thing.new(number + 1)])
        self.assertEqual([self.storage.get_blocking(name[0]).byte for name in names], [1, 2, 3, 4])

    def test_a_prompt_of_many_workers_is_one_prompt(self) -> None:
        for worker in range(3):
            self.storage.batched_contains(keys("a", 2, world_size=3, worker_id=worker))
        self.assertEqual([frame.prompt_tokens for frame in self.agent.heard if isinstance(frame, p.LookUp)][-3:], [32, 0, 0])

    def test_the_same_bytes_in_another_dtype_or_with_other_heads_do_not_meet(self) -> None:
        names = keys("a", 2)
        self.put(names, things(2))
        for other in (
            self.engine(FLOAT16), self.engine(heads=2), self.engine(**{"holdfast.kv_scales": "of another calibration"}),
            self.engine(**{"holdfast.revision": "r"}), self.engine(**{"holdfast.tokenizer": "t"}),
        ):  # fmt: skip
            self.assertEqual(other.batched_contains(names), 0)
            self.assertEqual(other.batched_get_blocking(names), [None] * 2)
        self.assertEqual(self.engine().batched_contains(names), 2)

    def test_parts_of_chunks_are_not_kept(self) -> None:
        self.assertEqual(self.put(keys("a", 1), [Thing.new(1, SIZE // 2)]), [])
        self.assertEqual(self.agent.blocks, {})

    def test_pins_are_taken_back_once(self) -> None:
        names = keys("a", 1)
        self.assertFalse(self.storage.pin(names[0]))
        self.put(names, things(1))
        self.assertTrue(self.storage.pin(names[0]))
        self.assertTrue(self.storage.unpin(names[0]))
        self.assertFalse(self.storage.unpin(names[0]))

    def test_without_an_agent_nothing_is_found_and_no_buffer_is_held(self) -> None:
        names, objects = keys("a", 3), things(3)
        self.put(names, objects)
        self.agent.stop()
        self.until(lambda: not self.storage._link.client.is_open)
        self.assertEqual(self.storage.batched_contains(names), 0)
        self.assertEqual(self.storage.batched_get_blocking(names), [None] * 3)
        self.assertEqual(self.put(names, objects), [])
        self.assertEqual({thing.references for thing in objects}, {1})


if __name__ == "__main__":
    unittest.main(verbosity=2)
