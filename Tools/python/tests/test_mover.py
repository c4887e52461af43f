"""Blocks between an engine's memory and an agent in memory: shared, staged, in parts, in pieces."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import sys
import tempfile
import time
import unittest
import unittest.mock
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from memory_agent import MemoryAgent

from holdfast_kv.client import Client, Settings
from holdfast_kv.held import HELD_MAX, HELD_SECONDS
from holdfast_kv.mover import Mover, shared_mapping
from holdfast_kv.namespace import REQUIRED_FIELDS
from holdfast_kv.protocol import Cancel, Chain, Finished, Load, LookUp
from holdfast_kv.regions import SharedMemory

FIELDS = dict.fromkeys(REQUIRED_FIELDS, "1") | {"block_tokens": "16"}
BLOCK = 4096


def address_of(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


class MoverTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.agent = MemoryAgent(os.path.join(folder.name, "agent.sock"))
        self.addCleanup(self.agent.stop)
        self.mover = self.mover_of()

    def mover_of(self, staging_bytes: int = 8 * BLOCK, deadline: float = 30.0) -> Mover:
        client = Client(self.agent.path, kind="sglang", store_namespace="default", fields=FIELDS, block_bytes=BLOCK,
                        settings=Settings(lookup_deadline=30.0, load_deadline=deadline, save_deadline=deadline))  # fmt: skip
        self.assertTrue(client.wait_open(30))
        mover = Mover(client, block_bytes=BLOCK, staging_bytes=staging_bytes)
        self.addCleanup(mover.close)
        return mover

    def chain(self, text: str, count: int, group: int = 0) -> Chain:
        return Chain(tuple(hashlib.sha256(f"{text}{number}".encode()).digest() for number in range(count)), group)

    def round_trip(self, view: memoryview, size: int, count: int, cuts: tuple[int, ...] = ()) -> None:
        base = address_of(view)

        def pieces(at: int) -> list[tuple[int, int]]:
            ends = [*cuts, size]
            return [(base + at + start, end - start) for start, end in zip([0, *ends], ends, strict=False)]

        view[: size * count] = os.urandom(size * count)
        before = bytes(view[: size * count])
        chain = self.chain(f"{size}{cuts}{view.nbytes}", count)
        payloads = [pieces(size * number) for number in range(count)]
        self.assertEqual(self.mover.save(chain, 0, payloads), [True] * count)
        self.assertEqual(self.mover.look_up(chain, prompt_tokens=16 * count), count)
        view[: size * count] = bytes(size * count)
        # The later half into the places of the earlier one, then all.
        half = count // 2
        self.assertEqual(self.mover.load(chain, half, payloads[: count - half]), count - half)
        self.assertEqual(bytes(view[: size * (count - half)]), before[size * half :])
        self.assertEqual(self.mover.load(chain, 0, payloads), count)
        self.assertEqual(bytes(view[: size * count]), before)

    def test_private_memory_is_staged(self) -> None:
        memory = memoryview(bytearray(BLOCK * 40))
        self.assertFalse(self.mover.share(address_of(memory), memory.nbytes))
        self.round_trip(memory, BLOCK, 30)
        self.assertEqual(self.mover.bytes_shared, 0)

    def test_shared_memory_is_not_copied(self) -> None:
        with SharedMemory(BLOCK * 40) as memory:
            self.assertTrue(self.mover.share(address_of(memory.view), memory.length))
            self.round_trip(memory.view, BLOCK, 30)
            self.assertEqual(self.mover.bytes_copied, 0)
            self.mover.close()

    def test_payloads_of_other_sizes_travel_in_parts(self) -> None:
        for size in (1, 100, BLOCK - 1, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 7):
            self.round_trip(memoryview(bytearray(size * 9)), size, 9)
            with SharedMemory(size * 9) as memory:
                mover = self.mover
                self.mover = self.mover_of()
                self.assertTrue(self.mover.share(address_of(memory.view), memory.length))
                self.round_trip(memory.view, size, 9)
                self.assertEqual(self.mover.bytes_copied, 0)
                self.mover.close()
                self.mover = mover

    def test_pieces_keep_their_order(self) -> None:
        self.round_trip(memoryview(bytearray(BLOCK * 9)), BLOCK, 9, (1, 100, 2000, 4000))
        self.round_trip(memoryview(bytearray(BLOCK * 27)), 3 * BLOCK, 9, (5000, 5001, 9000))

    def test_parts_do_not_meet_other_groups(self) -> None:
        memory = memoryview(bytearray(os.urandom(BLOCK * 4)))
        base = address_of(memory)
        for group in (0, 1):
            self.assertEqual(
                self.mover.save(self.chain("groups", 1, group), 0, [[(base + group * 2 * BLOCK, 2 * BLOCK)]]), [True]
            )
        self.assertEqual(len(self.agent.blocks), 4)

    def test_a_gap_ends_a_load(self) -> None:
        memory = memoryview(bytearray(BLOCK * 4))
        payloads = [[(address_of(memory) + BLOCK * number, BLOCK)] for number in range(4)]
        chain = self.chain("gap", 4)
        self.mover.save(chain, 0, payloads[:2])
        self.mover.save(chain, 3, payloads[3:])
        self.assertEqual(self.mover.load(chain, 0, payloads), 2)

    @unittest.mock.patch("holdfast_kv.mover._CANCEL_SECONDS", 0.0)
    def test_an_agent_that_stands_still_costs_the_deadline(self) -> None:
        mover = self.mover_of(staging_bytes=2 * BLOCK, deadline=0.01)
        chain, payloads = self.chain("stands still", 4), self.payloads(4)
        self.agent.holds = self.agent.holds_cancels = True
        # The job that nobody ends keeps its slots; who comes then finds none.
        self.assertEqual(mover.save(chain, 0, payloads), [False] * 4)
        self.assertEqual(mover._staged().free, 0)
        self.assertEqual(mover.load(chain, 0, payloads), 0)
        self.assertEqual(mover.save(chain, 0, payloads), [False] * 4)
        self.agent.wait(lambda: any(isinstance(frame, Cancel) for frame in self.agent.heard))
        self.agent.acknowledge()
        self.assertTrue(self.agent.wait(lambda: mover._staged().free == 2), "they come back with the job's end")

    # ---- whose loads they are

    def payloads(self, count: int) -> list[list[tuple[int, int]]]:
        memory = memoryview(bytearray(BLOCK * count))
        self.addCleanup(memory.release)
        return [[(address_of(memory) + BLOCK * number, BLOCK)] for number in range(count)]

    def heard(self, kind: type[Load] | type[Finished] | type[LookUp]) -> list[int]:
        """The requests that frames of a kind name, in order."""
        self.assertTrue(self.mover.client.ping().result(30))
        named = [frame for frame in self.agent.heard if isinstance(frame, kind)]
        # The check at the attach loads, too.
        named = [frame for frame in named if not (isinstance(frame, Load) and frame.chain.group == 0xFFFF)]
        return [frame.request if isinstance(frame, Load) else frame.ticket for frame in named]

    def test_a_look_up_ends_behind_the_loads_of_what_it_found(self) -> None:
        chain, payloads = self.chain("held", 6), self.payloads(6)
        self.mover.save(chain, 0, payloads)
        self.assertEqual(self.mover.look_up(chain, prompt_tokens=96), 6)
        (ticket,) = self.heard(LookUp)
        self.assertEqual(self.heard(Finished), [])
        # In two calls, as an engine that loads so many pages at a time makes them.
        self.assertEqual(self.mover.load(chain, 0, payloads[:4]), 4)
        self.assertEqual(self.heard(Finished), [])
        self.assertEqual(self.mover.load(chain, 4, payloads[4:]), 2)
        self.assertEqual(self.heard(Load), [ticket, ticket])
        self.assertEqual(self.heard(Finished), [ticket])
        # Nobody asked for this one.
        self.mover.load(chain, 0, payloads)
        self.assertEqual(self.heard(Load)[2:], [0])

    def test_what_found_nothing_ends_at_once(self) -> None:
        self.assertEqual(self.mover.look_up(self.chain("nothing", 3), prompt_tokens=48), 0)
        self.assertEqual(self.heard(Finished), self.heard(LookUp))

    def test_a_load_that_falls_short_is_the_last_of_its_look_up(self) -> None:
        chain, payloads = self.chain("short", 4), self.payloads(4)
        self.mover.save(chain, 0, payloads)
        self.mover.look_up(chain, prompt_tokens=64)
        self.agent.blocks.pop((chain.keys[2], 0, 0))
        self.assertEqual(self.mover.load(chain, 0, payloads), 2)
        self.assertEqual(self.heard(Finished), self.heard(LookUp))

    def test_prompts_that_begin_alike_have_their_own_loads(self) -> None:
        long, payloads = self.chain("alike", 6), self.payloads(6)
        self.mover.save(long, 0, payloads)
        short = Chain(long.keys[:3])
        for chain in (short, long):
            self.mover.look_up(chain, prompt_tokens=16)
        first, second = self.heard(LookUp)
        self.mover.load(long, 0, payloads)
        self.mover.load(short, 0, payloads[:3])
        self.assertEqual(self.heard(Load)[-2:], [second, first])
        self.assertEqual(self.heard(Finished), [second, first])

    def test_look_ups_without_a_load_end_when_there_are_many_or_they_are_old(self) -> None:
        chain, payloads = self.chain("many", 1), self.payloads(1)
        self.mover.save(chain, 0, payloads)
        for _ in range(HELD_MAX + 3):
            self.mover.look_up(chain, prompt_tokens=16)
        asked = self.heard(LookUp)
        self.assertEqual(self.heard(Finished), asked[:3])
        with unittest.mock.patch("holdfast_kv.held.time.monotonic", return_value=time.monotonic() + HELD_SECONDS + 1):
            self.mover.look_up(chain, prompt_tokens=16)
        self.assertEqual(self.heard(Finished), asked)
        self.mover.load(chain, 0, payloads)
        self.assertEqual(self.heard(Finished), self.heard(LookUp))

    def test_parts_of_a_page_are_one_look_up(self) -> None:
        chain = self.chain("parts", 2)
        memory = memoryview(bytearray(BLOCK * 4))
        payloads = [[(address_of(memory) + 2 * BLOCK * number, 2 * BLOCK)] for number in range(2)]
        self.mover.save(chain, 0, payloads)
        self.assertEqual(self.mover.look_up(chain, prompt_tokens=32), 2)
        self.assertEqual(self.mover.load(chain, 0, payloads), 2)
        (ticket,) = self.heard(LookUp)
        # The parts beyond the first are in groups that nobody looked up.
        self.assertEqual(self.heard(Load), [ticket, 0])
        self.assertEqual(self.heard(Finished), [ticket])

    def test_files_behind_memory_are_found(self) -> None:
        with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
            file.truncate(3 * mmap.PAGESIZE)
            view = memoryview(mmap.mmap(file.fileno(), 2 * mmap.PAGESIZE, offset=mmap.PAGESIZE))
            found = shared_mapping(address_of(view) + 100, 200)
            assert found is not None
            self.assertEqual(found[1], mmap.PAGESIZE + 100)
            self.assertTrue(os.path.samestat(os.fstat(found[0]), os.fstat(file.fileno())))
            os.close(found[0])
            private = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE, flags=mmap.MAP_PRIVATE))
            self.assertIsNone(shared_mapping(address_of(private), 1))
        self.assertIsNone(shared_mapping(address_of(memoryview(bytearray(100))), 100))


if __name__ == "__main__":
    unittest.main()
