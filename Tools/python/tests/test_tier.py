"""What connectors share, against an agent in this process: verdicts, runs, failures, ends."""

from __future__ import annotations

import os
import tempfile
import time
import unittest

from memory_agent import MemoryAgent

from holdfast_kv.client import Client, Settings
from holdfast_kv.namespace import REQUIRED_FIELDS, EngineKeys, engine_key, namespace_digest
from holdfast_kv.protocol import KEYS_MAX, Cancel, Load, Save
from holdfast_kv.regions import SharedMemory
from holdfast_kv.tier import ENDED_NAMES_MAX, ENDED_REQUESTS_MAX, Block, JobEnd, Tier, name_of

FIELDS = dict.fromkeys(REQUIRED_FIELDS, "") | {"block_tokens": "16", "engine": "test"}
ROW = 4096


def hashes(text: str, count: int) -> list[bytes]:
    return [name_of(f"{text}{number}".encode().ljust(32, b".")) for number in range(count)]


class TierTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        path = os.path.join(self.folder.name, "agent.sock")
        self.agent = MemoryAgent(path)
        self.addCleanup(self.agent.stop)
        # Nothing is late because the machine is busy.
        settings = Settings(lookup_deadline=60, load_deadline=60, save_deadline=60, check_deadline=60, backoff=0.01)
        self.client = Client(path, kind="test", store_namespace="n", fields=FIELDS, block_bytes=ROW, settings=settings)
        self.addCleanup(self.client.close)
        self.assertTrue(self.client.wait_open(30))
        self.memory = SharedMemory(64 * ROW)
        self.addCleanup(self.memory.close)
        self.region = self.client.add_region(self.memory.fd, self.memory.length)
        self.tier = Tier(self.client, namespace_digest(FIELDS), block_tokens=16)

    def blocks(self, keys: list[bytes], rows: list[int]) -> list[Block]:
        return [
            Block(key, ((self.region, row * ROW, ROW),)) for key, row in zip(keys, rows, strict=True)
        ]

    def row(self, number: int) -> bytes:
        return bytes(self.memory.view[number * ROW : (number + 1) * ROW])

    def fill(self, number: int, byte: int) -> None:
        self.memory.view[number * ROW : (number + 1) * ROW] = bytes([byte]) * ROW

    def end(self) -> JobEnd:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if ended := self.tier.ended():
                self.assertEqual(len(ended), 1)
                return ended[0]
            time.sleep(0.001)
        self.fail("a job does not end")

    def verdicts(self, request: str, keys: list[bytes]) -> list[bool | None]:
        for key in keys:
            self.tier.look_up(request, key)
        self.tier.flush()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = [self.tier.look_up(request, key) for key in keys]
            if None not in found:
                return found
            time.sleep(0.001)
        self.fail("a look-up has no answer")

    def save(self, keys: list[bytes], request: str = "w") -> None:
        for number in range(len(keys)):
            self.fill(number, number + 1)
        self.tier.save(1, request, self.blocks(keys, list(range(len(keys)))))
        self.assertTrue(self.end().is_whole)

    def test_keys_are_those_of_the_namespace(self) -> None:
        digest = namespace_digest(FIELDS)
        self.assertEqual(EngineKeys(digest)(b"x" * 32), engine_key(digest, b"x" * 32))

    def test_first_ask_is_ask_again_and_one_lookup_serves_the_step(self) -> None:
        keys = hashes("a", 6)
        self.save(keys[:4])
        before = self.client.counters.lookups
        self.assertEqual([self.tier.look_up("r", key) for key in keys], [None] * 6)
        self.assertEqual(self.client.counters.lookups, before)
        self.assertEqual(self.verdicts("r", keys), [True] * 4 + [False] * 2)
        self.assertEqual(self.client.counters.lookups, before + 1)

    def test_loaded_bytes_are_those_that_were_saved(self) -> None:
        keys = hashes("a", 4)
        self.save(keys)
        self.assertEqual(self.verdicts("r", keys), [True] * 4)
        # Rows in any order, the job's keys too.
        self.tier.load(2, "r", self.blocks([keys[2], keys[0], keys[1]], [42, 40, 41]))
        self.assertEqual(self.end().done, (0, 1, 2))
        self.assertEqual([self.row(40 + number)[0] for number in range(3)], [1, 2, 3])

    def test_gap_splits_a_load_and_each_part_counts(self) -> None:
        keys = hashes("a", 6)
        self.save(keys[:5])
        self.verdicts("r", keys)
        self.tier.load(2, "r", self.blocks([keys[0], keys[1], keys[4], keys[5]], [30, 31, 34, 35]))
        end = self.end()
        self.assertEqual(end.done, (0, 1, 2))
        self.assertFalse(end.is_whole)
        self.assertEqual(self.row(34)[0], 5)

    def test_failed_load_is_a_miss_from_then_on(self) -> None:
        keys = hashes("a", 4)
        self.save(keys)
        self.assertEqual(self.verdicts("r", keys), [True] * 4)
        self.agent.blocks.clear()
        self.tier.load(2, "r", self.blocks(keys, [20, 21, 22, 23]))
        self.assertEqual(self.end().done, ())
        self.assertEqual([self.tier.look_up("r", key) for key in keys], [False] * 4)

    def test_late_load_ends_only_when_its_places_are_free(self) -> None:
        keys = hashes("a", 2)
        self.save(keys)
        self.verdicts("r", keys)
        self.agent.holds = self.agent.holds_cancels = True
        self.tier.load(2, "r", self.blocks(keys, [20, 21]), deadline=0.02)
        # Its time is over, and the agent has not said that it is done with the places.
        self.assertTrue(self.agent.wait(lambda: any(isinstance(frame, Cancel) for frame in self.agent.heard)))
        self.assertEqual(self.tier.ended(), [])
        self.agent.stop()
        self.assertEqual(self.end().done, ())

    def test_without_agent_everything_misses_at_once(self) -> None:
        keys = hashes("a", 3)
        self.agent.stop()
        deadline = time.monotonic() + 60
        while self.client.is_open and time.monotonic() < deadline:
            time.sleep(0.001)
        self.assertEqual([self.tier.look_up("r", key) for key in keys], [False] * 3)
        self.tier.save(1, "r", self.blocks(keys, [0, 1, 2]))
        self.assertEqual(self.end().done, ())
        self.tier.load(2, "r", self.blocks(keys, [0, 1, 2]))
        self.assertEqual(self.end().done, ())

    def test_request_that_ended_leaves_nothing(self) -> None:
        keys = hashes("a", 3)
        self.verdicts("r", keys)
        self.tier.finished("r")
        self.assertTrue(self.agent.wait(lambda: len(self.agent.ends) == 1))
        self.assertEqual(self.tier.look_up("r", keys[0]), None)
        self.tier.finished("r")
        self.assertEqual(self.tier._requests, {})

    def test_every_load_of_a_request_names_its_first_look_up(self) -> None:
        keys = hashes("a", 6)
        self.save(keys, "other")
        # The engine names more blocks of the chain in a later step.
        self.verdicts("r", keys[:4])
        self.verdicts("r", keys)
        first, later = self.tier._requests["r"].chains[0].tickets
        self.assertEqual([frame.prompt_tokens > 0 for frame in self.agent.heard if frame.ticket in (first, later)], [True, False])
        # Block 2 the engine has itself.
        self.tier.load(2, "r", self.blocks([keys[0], keys[1], keys[3], keys[4], keys[5]], [0, 1, 3, 4, 5]))
        self.assertTrue(self.end().is_whole)
        loads = [frame for frame in self.agent.heard if isinstance(frame, Load) and frame.chain.group != 0xFFFF]
        self.assertEqual([(load.request, load.asker) for load in loads], [(first, 0), (first, 0)])
        self.assertEqual([(load.first, len(load.chain.keys)) for load in loads], [(0, 0), (3, 6)])

    def test_save_behind_the_end_goes_on_from_its_turn(self) -> None:
        keys = hashes("a", 6)
        self.save(keys[:2], "other")
        self.tier.begin("r")
        self.verdicts("r", keys[:4])
        (ticket,) = self.tier._requests["r"].chains[0].tickets
        self.tier.finished("r")
        self.tier.save(2, "r", self.blocks(keys[4:], [4, 5]))
        self.assertTrue(self.end().is_whole)
        saved = [frame for frame in self.agent.heard if isinstance(frame, Save)][-1]
        self.assertEqual((saved.request, saved.asker), (ticket, self.client.number))
        self.assertEqual((saved.first, len(saved.chain.keys)), (4, 6))
        # A request of the same name is another one.
        self.tier.begin("r")
        self.assertEqual(self.tier.look_up("r", keys[0]), None)

    def test_saves_behind_ends_leave_no_request_behind(self) -> None:
        keys = hashes("a", 2)
        for number in range(ENDED_REQUESTS_MAX + 200):
            name = f"r{number}"
            self.tier.begin(name)
            self.tier.look_up(name, keys[0])
            self.tier.finished(name)
            if number % 400 == 0:
                self.tier.save(number, name, self.blocks(keys, [0, 1]))
                self.assertTrue(self.end().is_whole)
        # One whose end was long ago, and one that nobody began.
        for job, name in ((1, "r0"), (2, "nobody")):
            self.tier.save(job, name, self.blocks(keys, [0, 1]))
            self.end()
        self.assertEqual(self.tier._requests, {})
        self.assertEqual(len(self.tier._over), ENDED_REQUESTS_MAX)
        self.assertEqual(self.tier._over._names, sum(map(len, self.tier._over.values())))

    def test_names_of_requests_that_are_over_are_bounded(self) -> None:
        names = hashes("a", KEYS_MAX)
        for number in range(ENDED_NAMES_MAX // KEYS_MAX + 3):
            for name in names:
                self.tier.look_up(f"r{number}", name)
            self.tier.finished(f"r{number}")
        self.assertLessEqual(self.tier._over._names, ENDED_NAMES_MAX)
        self.assertGreater(len(self.tier._over), 0)

    def test_drain_ends_every_job(self) -> None:
        keys = hashes("a", 8)
        for number in range(8):
            self.tier.save(number, "r", self.blocks([keys[number]], [number]))
        self.assertTrue(self.tier.drain(60))
        self.assertEqual(sorted(end.job for end in self.tier.ended()), list(range(8)))


if __name__ == "__main__":
    unittest.main()
