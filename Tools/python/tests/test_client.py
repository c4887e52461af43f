"""The client against an agent that misbehaves, dies and comes back."""

import os
import sys
import tempfile
import time
import unittest
from concurrent.futures import Future
from pathlib import Path
from unittest import mock

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from conformance import BLOCK, FIELDS, keys_of  # noqa: E402
from memory_agent import MemoryAgent  # noqa: E402

from holdfast_kv import arena  # noqa: E402
from holdfast_kv import protocol as p  # noqa: E402
from holdfast_kv.client import Client, Settings  # noqa: E402
from holdfast_kv.namespace import canary, namespace_digest  # noqa: E402
from holdfast_kv.regions import SharedMemory, StagingRegion  # noqa: E402


class ClientTest(unittest.TestCase):
    """Each test has an agent of its own."""

    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = os.path.join(self.folder.name, "s")
        self.agent = MemoryAgent(self.path)
        self.addCleanup(self.agent.stop)

    def client(self, **settings: float) -> Client:
        patience = {"lookup_deadline": 30.0, "load_deadline": 30.0, "check_deadline": 30.0, "backoff": 0.01, "backoff_max": 0.02} | settings
        client = Client(
            self.path, kind="replay", store_namespace="d", fields=FIELDS, block_bytes=BLOCK,
            settings=Settings(**patience),
        )  # fmt: skip
        self.addCleanup(client.close, 0.1)
        return client

    def shared(self, client: Client, blocks: int = 8) -> tuple[SharedMemory, int]:
        memory = SharedMemory(blocks * BLOCK)
        self.addCleanup(memory.close)
        return memory, client.add_region(memory.fd, memory.length)

    def held_load(self, client: Client) -> tuple[Future[p.Loaded], int]:
        """A load that the agent has and does not answer, and the region it is for."""
        self.assertTrue(client.wait_open(30))
        _, region = self.shared(client)
        self.agent.holds = True
        loaded = client.load(keys_of("k", 1), 0, p.Places.rows(region, [0], BLOCK))
        self.wait(lambda: len(self.agent.held) == 1)
        return loaded, region

    def wait(self, condition: object) -> None:
        self.assertTrue(self.agent.wait(condition))

    def test_an_agent_that_breaks_off_each_time_is_asked_again_ever_later(self) -> None:
        slept: list[float] = []
        lives = [0.0] * 5 + [0.1] + [0.0] * 2

        class Broken:
            """A conversation that has welcomed the engine and ends."""

            def __init__(self, link: object, connection: object) -> None: ...

            def run(self) -> float:
                return time.monotonic() - lives[len(slept)]

        def sleep(link: Client, seconds: float) -> None:
            slept.append(seconds)
            link._is_closing = len(slept) == len(lives)

        with (
            mock.patch("holdfast_kv.connection._Conversation", Broken),
            mock.patch("holdfast_kv.connection.random.random", lambda: 0.0),
            mock.patch.object(Client, "_sleep", sleep),
        ):
            client = self.client(backoff=0.1, backoff_max=0.5)
            client._thread.join(30)
        # One that has lived for a while is made anew at once.
        self.assertEqual(slept, [0.0, 0.1, 0.2, 0.4, 0.5, 0.0, 0.1, 0.2])

    def test_without_agent_everything_misses_at_once(self) -> None:
        self.agent.stop()
        os.unlink(self.path)
        client = self.client()
        _, region = self.shared(client)
        # Each has ended when the call comes back.
        ticket, found = client.lookup(keys_of("x", 3), prompt_tokens=48)
        self.assertEqual(found.result(0).hit_blocks, 0)
        self.assertEqual(client.load(keys_of("x", 3), 0, p.Places.rows(region, [0, 1, 2], BLOCK)).result(0).end, 0)
        self.assertEqual(client.save(keys_of("x", 1), 0, p.Places.rows(region, [0], BLOCK)).result(0).kept, 0)
        self.assertIsNone(client.cancel(ticket).result(0))
        client.finished(ticket)
        client.touch(keys_of("x", 1))
        self.assertFalse(client.ping().result(0))

    def test_a_block_is_compared_at_each_attach(self) -> None:
        client = self.client()
        self.assertTrue(client.wait_open(30))
        self.assertIs(client.checked, True)
        digest = namespace_digest(FIELDS)
        self.assertEqual(list(self.agent.canaries.values()), [canary(digest, BLOCK)])
        memory, region = self.shared(client)
        memory.view[:BLOCK] = b"7" * BLOCK
        self.assertEqual(client.save(keys_of("x", 1), 0, p.Places.rows(region, [0], BLOCK)).result(30).kept, 1)
        # The same agent, come back with other memory: nothing of it reaches the engine.
        self.agent.damages = True
        with self.assertLogs("holdfast_kv", "ERROR") as logs:
            self.agent.cut()
            self.wait(lambda: client.is_distrusted)
        self.assertIn("gave back other bytes than it was given", logs.output[0])
        self.assertFalse(client.is_open)
        self.assertFalse(client.wait_open(0.1))
        self.assertEqual(client.load(keys_of("x", 1), 0, p.Places.rows(region, [1], BLOCK)).result(30).end, 0)
        self.assertEqual(bytes(memory.view[BLOCK : 2 * BLOCK]), bytes(BLOCK))
        self.assertEqual(client.counters.connections, 2)

    def test_a_check_that_the_agent_does_not_answer_ends_with_its_deadline(self) -> None:
        self.agent.holds = True
        client = self.client(check_deadline=0.05)
        self.assertTrue(client.wait_open(15))
        self.assertIsNone(client.checked)

    def test_a_block_that_the_agent_does_not_keep_at_first_is_compared_all_the_same(self) -> None:
        self.agent.canaries_missed = 3
        client = self.client()
        self.assertTrue(client.wait_open(15))
        self.assertIs(client.checked, True)
        saves = [frame for frame in self.agent.heard if isinstance(frame, p.Save)]
        self.assertEqual(len(saves), 4)

    def test_a_check_that_waits_when_the_agent_goes_begins_anew_with_the_next_one(self) -> None:
        self.agent.canaries_missed = 1_000_000
        client = self.client()
        self.wait(lambda: client.counters.connections == 1 and client._check is not None and client._check._wait > 0.1)
        self.agent.canaries_missed = 0
        self.agent.cut()
        self.assertTrue(client.wait_open(15))
        self.assertIs(client.checked, True)
        self.assertIsNone(client._check)

    def test_agent_that_comes_later_is_used(self) -> None:
        self.agent.stop()
        with self.assertLogs("holdfast_kv", "WARNING") as logs:
            client = self.client()
            memory, region = self.shared(client)
            self.wait(lambda: client._said_absent)
            self.assertFalse(client.is_open)
            self.agent = MemoryAgent(self.path)
            self.assertTrue(client.wait_open(30))
        # Said once, however often it was tried.
        self.assertEqual(len(logs.output), 2)
        self.assertIn("no agent at", logs.output[0])
        self.assertIn("is there", logs.output[1])
        memory.view[:BLOCK] = b"7" * BLOCK
        self.assertEqual(client.save(keys_of("y", 1), 0, p.Places.rows(region, [0], BLOCK)).result(30).kept, 1)
        self.assertEqual(next(iter(self.agent.blocks.values())), b"7" * BLOCK)

    def test_late_lookup_is_a_miss_and_the_next_one_does_not_wait(self) -> None:
        client = self.client(lookup_deadline=0.02)
        self.assertTrue(client.wait_open(30))
        self.agent.holds = True
        ticket, found = client.lookup(keys_of("z", 2), prompt_tokens=32)
        self.assertEqual(found.result(30).hit_blocks, 0)
        self.assertEqual(client.counters.lookups_late, 1)
        client.finished(ticket)
        # The cancellation's answer shows that somebody listens again.
        self.wait(lambda: not client._ledger.is_stalled)
        self.agent.holds = False
        _, found = client.lookup(keys_of("z", 2), prompt_tokens=32, deadline=30)
        found.result(30)
        self.assertEqual(client.counters.lookups_late, 1)

    def test_place_comes_back_only_with_the_acknowledgement(self) -> None:
        client = self.client(load_deadline=0.02)
        self.assertTrue(client.wait_open(30))
        _, region = self.shared(client)
        self.agent.holds = self.agent.holds_cancels = True
        loaded = client.load(keys_of("c", 1), 0, p.Places.rows(region, [0], BLOCK))
        self.wait(lambda: client.counters.loads_cancelled == 1)
        self.assertFalse(loaded.done())
        self.assertFalse(client.drain(0.01))
        peer, job = self.agent.held[0]
        peer.say(p.Cancelled(job.ticket))
        self.assertEqual(loaded.result(30).end, 0)
        self.assertTrue(client.drain(30))

    def test_jobs_of_a_crashed_agent_end_when_nobody_listens(self) -> None:
        client = self.client()
        self.assertTrue(client.wait_open(30))
        _, region = self.shared(client)
        self.agent.holds = True
        loaded = client.load(keys_of("k", 1), 0, p.Places.rows(region, [0], BLOCK))
        saved = client.save(keys_of("k", 1), 0, p.Places.rows(region, [1], BLOCK))
        _, found = client.lookup(keys_of("k", 1), prompt_tokens=16)
        self.wait(lambda: len(self.agent.held) == 3)
        self.agent.stop()
        self.assertEqual(found.result(30).hit_blocks, 0)
        self.assertEqual((loaded.result(30).end, saved.result(30).kept), (0, 0))
        self.assertEqual(client.counters.orphaned_jobs, 2)

    def test_jobs_wait_for_an_agent_whose_socket_was_removed(self) -> None:
        client = self.client(absence=1000.0)
        loaded, _ = self.held_load(client)
        self.agent.holds = False
        with self.assertLogs("holdfast_kv", "WARNING"):
            os.rename(self.path, self.path + ".away")
            self.agent.cut()
            # Said behind the first try that found no socket.
            self.wait(lambda: client._said_absent)
            self.assertFalse(loaded.done())
            os.rename(self.path + ".away", self.path)
            self.assertEqual(loaded.result(30).end, 0)
            self.wait(lambda: client.counters.connections == 2)

    def test_jobs_end_when_there_is_no_socket_for_long(self) -> None:
        loaded, _ = self.held_load(self.client(absence=0.05))
        with self.assertLogs("holdfast_kv", "WARNING"):
            os.unlink(self.path)
            self.agent.stop()
            self.assertEqual(loaded.result(30).end, 0)

    def test_jobs_of_a_cut_connection_end_with_the_next_welcome(self) -> None:
        client = self.client()
        loaded, region = self.held_load(client)
        self.agent.holds = False
        self.agent.cut()
        self.assertEqual(loaded.result(30).end, 0)
        self.wait(lambda: client.counters.connections == 2 and client.is_open)
        self.assertEqual(client.save(keys_of("k", 1), 0, p.Places.rows(region, [1], BLOCK)).result(30).kept, 1)

    def test_refusal_is_told_and_tried_again(self) -> None:
        self.agent.refuses = p.Refused(0, p.Refusal.LAYOUT, "dtype: bf16 | fp8")
        with self.assertLogs("holdfast_kv", "ERROR"):
            client = self.client()
            self.wait(lambda: client.counters.refusals >= 2)
        self.assertEqual(client.refusal, self.agent.refuses)
        self.agent.refuses = None
        self.assertTrue(client.wait_open(30))

    def test_full_queue_is_a_miss(self) -> None:
        client = self.client(queue_bytes=1000)
        self.assertTrue(client.wait_open(30))
        _, found = client.lookup(keys_of("q", 100), prompt_tokens=1600)
        self.assertEqual(found.result(0).hit_blocks, 0)
        self.assertEqual(client.counters.queue_full, 1)

    def test_region_is_free_when_it_was_dropped(self) -> None:
        client = self.client()
        self.assertTrue(client.wait_open(30))
        _, region = self.shared(client)
        client.region_added(region).result(30)
        client.drop_region(region).result(30)
        _, again = self.shared(client)
        self.assertEqual(again, region)

    def test_whoever_hears_of_a_region_s_end_may_ask_for_more(self) -> None:
        client = self.client()
        self.assertTrue(client.wait_open(30))
        _, region = self.shared(client)
        client.region_added(region).result(30)
        free: list[bool] = []

        def hear(_: object) -> None:
            free.append(client._lock.acquire(blocking=False))
            if free[-1]:
                client._lock.release()

        dropped = client.drop_region(region)
        dropped.add_done_callback(hear)
        dropped.result(30)
        # Of a lost connection it ends when nobody listens any more.
        _, kept = self.shared(client)
        client.region_added(kept).result(30)
        self.agent.holds = self.agent.holds_cancels = True
        job = client.save(keys_of("d", 1), 0, p.Places.rows(kept, [0], BLOCK))
        self.wait(lambda: self.agent.held)
        self.agent.stop()
        client.drop_region(kept).add_done_callback(hear)
        job.result(30)
        self.wait(lambda: len(free) == 2)
        self.assertEqual(free, [True, True])

    def test_goodbye_waits_for_jobs(self) -> None:
        client = self.client()
        self.assertTrue(client.wait_open(30))
        _, region = self.shared(client)
        saved = client.save(keys_of("g", 1), 0, p.Places.rows(region, [0], BLOCK))
        self.assertTrue(client.close(30))
        self.assertEqual(saved.result(0).kept, 1)
        self.assertEqual(client.lookup(keys_of("g", 1), prompt_tokens=16)[1].result(0).hit_blocks, 0)

    def test_slots_are_never_given_twice(self) -> None:
        staging = StagingRegion(BLOCK, 3)
        self.addCleanup(staging.close)
        one, other = staging.acquire(2), staging.acquire(1)
        assert one is not None and other is not None
        self.assertEqual(sorted(one + other), [0, 1, 2])
        self.assertIsNone(staging.acquire(1))
        staging.release(one)
        self.assertEqual(staging.free, 2)

    def test_child_process_has_no_cache_and_does_not_disturb(self) -> None:
        client = self.client()
        self.assertTrue(client.wait_open(30))
        child = os.fork()
        if child == 0:
            try:
                hit = client.lookup(keys_of("f", 1), prompt_tokens=16)[1].result(1).hit_blocks
                os._exit(0 if hit == 0 and client.close() else 1)
            finally:
                os._exit(2)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        self.assertTrue(client.ping().result(30))

    def test_child_process_does_not_keep_a_dead_engine_s_place(self) -> None:
        read, write = os.pipe()
        engine = os.fork()
        if engine == 0:
            try:
                client = self.client()
                if not client.wait_open(30):
                    os._exit(1)
                if os.fork() == 0:
                    os.close(write)
                    os.read(read, 1)
                os._exit(0)
            finally:
                os._exit(2)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(engine, 0)[1]), 0)
        # Its child lives until the pipe is closed.
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)
        self.wait(lambda: self.agent.hellos and self.agent.numbers()["engines"] == 0)

    # ---- the agent's arena

    def host(self, arena: str = "writing", **settings: float) -> Client:
        patience = {"lookup_deadline": 30.0, "load_deadline": 30.0, "check_deadline": 30.0, "backoff": 0.01, "backoff_max": 0.02} | settings
        client = Client(
            self.path, kind="replay", store_namespace="d", fields=FIELDS, block_bytes=BLOCK,
            settings=Settings(**patience), ownership=p.Ownership.HOST, arena=arena,
        )  # fmt: skip
        self.addCleanup(client.close, 0.1)
        return client

    def test_what_is_written_in_place_is_read_in_place(self) -> None:
        client = self.host()
        self.assertTrue(client.wait_open(30))
        reservation = client.reserve(3).result(30)
        assert reservation is not None
        self.assertEqual(len(reservation), 3)
        for index in range(3):
            reservation[index][:] = bytes([index + 1]) * BLOCK
        self.assertIsNone(client.take(keys_of("h", 3), 0, 3).result(30))
        self.assertEqual(reservation.commit(keys_of("h", 2), range(2)).result(30).kept, 0b11)
        self.assertTrue(reservation.in_force)
        self.assertEqual(reservation.commit(keys_of("h", 3), range(2, 3)).result(30).kept, 0b1)
        self.assertFalse(reservation.in_force)
        lease = client.take(keys_of("h", 5), 0, 5).result(30)
        assert lease is not None
        self.assertEqual([bytes(lease[index]) for index in range(len(lease))], [bytes([n]) * BLOCK for n in (1, 2, 3)])
        with self.assertRaises(TypeError):
            lease[0][0] = 7
        self.assertTrue(lease.in_force)
        self.assertTrue(lease.release().result(30))
        self.assertFalse(lease.in_force)
        self.assertTrue(lease.release().result(30), "given back once, however often it is said")

    def test_a_lease_is_read_layer_by_layer(self) -> None:
        client = self.host()
        self.assertTrue(client.wait_open(30))
        half = BLOCK // 2
        layers = [[(0, half // 2), (half, half // 2)], [(half // 2, half // 2), (half + half // 2, half // 2)]]
        reservation = client.reserve(2).result(30)
        assert reservation is not None
        for index in range(2):
            block = bytearray(BLOCK)
            for layer, parts in enumerate(layers):
                for offset, length in parts:
                    block[offset : offset + length] = bytes([index * 2 + layer]) * length
            reservation[index][:] = block
        reservation.commit(keys_of("l", 2)).result(30)
        for keeps_order in (True, False):
            with self.subTest(keeps_order=keeps_order), mock.patch("holdfast_kv.arena.LOADS_KEEP_ORDER", keeps_order):
                lease = client.take(keys_of("l", 2), 0, 2).result(30)
                assert lease is not None
                seen: list[object] = []
                count = lease.read_layers(
                    layers,
                    lambda layer, index, part, seen=seen: seen.append((layer, index, set(part), len(part))),
                    seen.append,
                )
                self.assertEqual(count, 2)
                reads = [[(n, i, {i * 2 + n}, half // 2) for i in (0, 1) for _ in (0, 1)] for n in (0, 1)]
                between = [*reads[0], 0, *reads[1], 1] if keeps_order else [*reads[0], *reads[1], 0, 1]
                self.assertEqual(seen, between)
                self.assertTrue(lease.release().result(30), "it was given back, which is said once")
                self.assertFalse(lease.in_force)
                # Recalled while the second layer is read: at most the first may be believed.
                lease = client.take(keys_of("l", 2), 0, 2).result(30)
                assert lease is not None
                believed: list[int] = []

                def recall(layer: int, *_: object, loan: p.Loan = lease.loan) -> None:
                    if layer == 1:
                        self.agent.recall(loan)

                count = lease.read_layers(layers, recall, believed.append)
                self.assertEqual((count, believed), (1, [0]) if keeps_order else (0, []))
        lease = client.take(keys_of("l", 2), 0, 2).result(30)
        assert lease is not None
        with self.assertRaisesRegex(ValueError, "outside a block"):
            lease.read_layers([[(BLOCK - 1, 2)]], lambda *_: None, lambda _: None)
        lease.release()

    def test_what_was_read_is_believed_by_the_word_or_by_the_agents_answer(self) -> None:
        client = self.host()
        self.assertTrue(client.wait_open(30))
        reservation = client.reserve(1).result(30)
        assert reservation is not None
        self.assertEqual(reservation.commit(keys_of("s", 1)).result(30).kept, 1)
        for keeps_order in (True, False):
            with mock.patch.object(arena, "LOADS_KEEP_ORDER", keeps_order):
                lease = client.take(keys_of("s", 1), 0, 1).result(30)
                assert lease is not None
                self.assertTrue(lease.settle())
                lease = client.take(keys_of("s", 1), 0, 1).result(30)
                assert lease is not None
                self.agent.recall(lease.loan)
                # A processor that read the word too early would see a lease in force.
                early = mock.patch.object(lease.arena, "in_force", return_value=not keeps_order)
                with early:
                    self.assertFalse(lease.settle())

    def test_a_loan_of_a_lost_connection_is_seen_and_the_next_arena_is_used(self) -> None:
        client = self.host()
        self.assertTrue(client.wait_open(30))
        first = client.reserve(2).result(30)
        assert first is not None
        arena = client.arena
        self.agent.cut()
        self.wait(lambda: client.counters.connections == 2 and client.is_open)
        self.assertIsNot(client.arena, arena)
        second = client.reserve(2).result(30)
        assert second is not None and client.arena is not None
        # What was mapped stays mapped: writing there harms nobody.
        first[0][:4] = b"gone"
        second[0][:] = b"9" * BLOCK
        self.assertEqual(second.commit(keys_of("i", 1), range(1)).result(30).kept, 1)

    def test_who_maps_for_reading_reserves_nothing_and_who_owns_its_tier_maps_nothing(self) -> None:
        client = self.host("reading")
        self.assertTrue(client.wait_open(30))
        self.assertIsNone(client.reserve(1).result(30))
        with self.assertRaises(ValueError):
            Client(self.path, kind="replay", store_namespace="d", fields=FIELDS, block_bytes=BLOCK, arena="reading")

    def test_without_an_agent_nothing_is_lent(self) -> None:
        self.agent.stop()
        client = self.host()
        self.assertIsNone(client.take(keys_of("j", 1), 0, 1).result(0))
        self.assertIsNone(client.reserve(1).result(0))
        self.assertFalse(client.release(p.Loan(1, 2)).result(0))

    def test_a_take_that_is_late_is_cancelled(self) -> None:
        client = self.host(load_deadline=0.03)
        self.assertTrue(client.wait_open(30))
        self.agent.holds = True
        self.assertIsNone(client.take(keys_of("k", 1), 0, 1).result(30))
        self.assertEqual(len([frame for frame in self.agent.heard if isinstance(frame, p.Cancel)]), 1)
        self.assertEqual(client.open_jobs, 0)


if __name__ == "__main__":
    unittest.main()
