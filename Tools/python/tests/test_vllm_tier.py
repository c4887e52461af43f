"""The rules of vLLM's secondary tiers, each a test: the tier's own methods in the order in which vLLM's manager calls them.

On the stand-in of ``stubs.vllm`` where vLLM is not installed, on the real package where it is. The agent is one in memory,
since most rules are about an agent that goes wrong.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import stubs.vllm
from memory_agent import MemoryAgent

if not stubs.is_installed("vllm"):
    stubs.vllm.install()

from vllm.v1.kv_offload.base import (
    Locality,
    LookupResult,
    Medium,
    ReqContext,
    ScheduleEndContext,
    make_offload_key,
)
from vllm.v1.kv_offload.tiering.base import JobResult, TransferJob

from holdfast_kv import protocol as p
from holdfast_kv.namespace import namespace_digest
from holdfast_kv.regions import SharedMemory
from holdfast_kv.vllm.tier import HoldfastTier, namespace_fields

ROW, ROWS = 8192, 32
HIT, MISS, RETRY = LookupResult.HIT, LookupResult.MISS, LookupResult.RETRY


def spec_of(
    *, model: str = "m/m", dtype: str = "bfloat16", tokens: int = 16, per_chunk: int = 1, layers: int = 2, groups: int = 1,
    ranks: int = 1, stages: int = 1, canonical: bool = False, order: str | None = None, events: bool = True,
) -> Any:  # fmt: skip
    """What a tier reads of an ``OffloadingSpec``."""
    names = tuple(f"l{number}" for number in range(layers))
    config = SimpleNamespace(
        groups=tuple(SimpleNamespace(tokens_per_block=tokens, layer_names=names, group_id=each) for each in range(groups)),
        engine_id="rules", model=SimpleNamespace(name=model, dtype=dtype, max_model_len=4096),
        cache=SimpleNamespace(tokens_per_hash=tokens, blocks_per_chunk=per_chunk),
        parallel=SimpleNamespace(
            rank=0, world_size=ranks * stages, tp_size=ranks, pp_size=stages, pcp_size=1, dcp_size=1,
            is_parallelism_agnostic=False,
        ),
        replicated_layout=False, canonical_layout=canonical, kv_cache_layout="LBNHC" if canonical else order,
    )  # fmt: skip
    return SimpleNamespace(config=config, kv_events_config=SimpleNamespace(enable_kv_cache_events=events))


def keys(text: str, count: int, group: int = 0) -> list[bytes]:
    return [make_offload_key(f"{text}{number}".encode().ljust(32, b"."), group) for number in range(count)]


class RulesTest(unittest.TestCase):
    def setUp(self) -> None:
        logging.getLogger("holdfast_kv").setLevel(logging.CRITICAL)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.socket = os.path.join(folder.name, "agent.sock")
        self.agent = MemoryAgent(self.socket)
        self.addCleanup(self.agent.stop)
        self.memory = SharedMemory(ROW * ROWS)
        self.jobs = iter(range(1, 1000))

    def tier(self, spec: Any = None, **more: Any) -> HoldfastTier:
        settings = {"lookup_deadline": 15.0, "load_deadline": 15.0, "store_deadline": 15.0} | more
        tier = HoldfastTier(
            spec or spec_of(), self.memory.view.cast("B", (ROWS, ROW)), "HoldfastTier", socket=self.socket,
            region_path=f"/proc/self/fd/{self.memory.fd}", **settings,
        )  # fmt: skip
        self.addCleanup(tier.shutdown)
        if os.path.exists(self.socket):
            self.assertTrue(tier._client.wait_open(15))
        return tier

    # ---- what vLLM's manager does

    def step(self, tier: HoldfastTier) -> None:
        tier.on_schedule_end(ScheduleEndContext((), ()))

    def begin(self, tier: HoldfastTier, name: str, **parameters: Any) -> ReqContext:
        context = ReqContext(name, kv_transfer_params=parameters or None)
        tier.on_new_request(context)
        return context

    def settle(self, tier: HoldfastTier, names: list[bytes], context: ReqContext) -> list[LookupResult]:
        """Steps until every look-up is answered."""
        results: list[LookupResult] = []

        def answered() -> bool:
            results[:] = [tier.lookup(name, context) for name in names]
            self.step(tier)
            return RETRY not in results

        self.until(answered)
        return results

    def job(self, names: list[bytes], rows: list[int], context: ReqContext, *, loads: bool) -> TransferJob:
        return TransferJob(next(self.jobs), names, rows, loads, context)

    def ends(self, tier: HoldfastTier, count: int = 1) -> list[JobResult]:
        """As many ends of jobs."""
        ended: list[JobResult] = []
        self.until(lambda: ended.extend(tier.get_finished_jobs()) or len(ended) >= count)
        self.assertEqual(len(ended), count)
        return ended

    def store(self, tier: HoldfastTier, names: list[bytes], context: ReqContext, first: int = 0) -> JobResult:
        """Stores rows ``first`` and on, each full of its number plus one."""
        for row in range(first, first + len(names)):
            self.memory.view[row * ROW : (row + 1) * ROW] = bytes([row + 1]) * ROW
        tier.submit_store(self.job(names, list(range(first, first + len(names))), context, loads=False))
        return self.ends(tier)[0]

    def row(self, number: int) -> int:
        """The byte that a row is full of."""
        found = set(self.memory.view[number * ROW : (number + 1) * ROW])
        self.assertEqual(len(found), 1)
        return found.pop()

    def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), deadline, "it does not come to pass")
            time.sleep(0.001)

    def asked(self) -> list[p.LookUp]:
        return [frame for frame in self.agent.heard if isinstance(frame, p.LookUp)]

    # ---- look-ups

    def test_the_first_ask_is_ask_again_and_one_message_leaves_when_the_step_ends(self) -> None:
        tier, names = self.tier(), keys("a", 6)
        context = self.begin(tier, "r")
        self.store(tier, names[:4], context)
        for _ in range(3):
            self.assertEqual([tier.lookup(name, context) for name in names], [RETRY] * 6)
        # Nothing has left yet: a question behind it would have been overtaken.
        self.assertTrue(tier._client.ping().result(15))
        self.assertEqual(self.asked(), [])
        self.step(tier)
        self.until(lambda: RETRY not in [tier.lookup(name, context) for name in names])
        self.assertEqual([tier.lookup(name, context) for name in names], [HIT] * 4 + [MISS] * 2)
        self.step(tier)
        self.assertTrue(tier._client.ping().result(15))
        self.assertEqual([len(frame.chain.keys) for frame in self.asked()], [6])

    def test_an_agent_that_does_not_answer_is_a_miss_and_never_a_wait(self) -> None:
        tier, names = self.tier(lookup_deadline=0.05), keys("a", 4)
        self.agent.holds = True
        self.assertEqual(self.settle(tier, names, self.begin(tier, "r")), [MISS] * 4)

    def test_groups_of_a_hybrid_model_are_asked_for_apart(self) -> None:
        tier = self.tier(spec_of(groups=2))
        context = self.begin(tier, "r")
        full, window = keys("a", 4), keys("a", 4, group=1)
        self.store(tier, full, context)
        self.store(tier, window[:2], context, 8)
        mixed = [name for pair in zip(full, window, strict=True) for name in pair]
        found = dict(zip(mixed, self.settle(tier, mixed, context), strict=True))
        self.assertEqual([found[name] for name in full], [HIT] * 4)
        self.assertEqual([found[name] for name in window], [HIT] * 2 + [MISS] * 2)
        tier.submit_load(self.job([window[1], full[3]], [20, 21], context, loads=True))
        self.assertTrue(self.ends(tier)[0].success)
        self.assertEqual((self.row(20), self.row(21)), (10, 4))

    def test_a_prompt_of_many_groups_is_one_prompt(self) -> None:
        tier = self.tier(spec_of(groups=2))
        context = self.begin(tier, "r")
        names = [name for pair in zip(keys("a", 4), keys("a", 4, group=1), strict=True) for name in pair]
        self.settle(tier, names, context)
        self.settle(tier, [*names, *keys("b", 2)], context)
        self.assertEqual([(frame.chain.group, frame.prompt_tokens) for frame in self.asked()], [(0, 64), (1, 0), (0, 0)])
        self.settle(tier, keys("c", 1), self.begin(tier, "s"))
        self.assertEqual(self.asked()[-1].prompt_tokens, 16)

    def test_a_conversation_is_named_to_the_agent(self) -> None:
        tier, names = self.tier(), keys("a", 2)
        self.settle(tier, names, self.begin(tier, "r1", session="c", turn=3))
        self.settle(tier, names, self.begin(tier, "r2", session="c", turn=4))
        self.settle(tier, names, self.begin(tier, "r3"))
        first, second, none = self.asked()
        self.assertEqual((first.session, first.turn, second.turn), (second.session, 3, 4))
        self.assertNotEqual(first.session, 0)
        self.assertEqual((none.session, none.turn), (0, -1))

    def test_what_other_tiers_used_is_told_in_one_message(self) -> None:
        tier = self.tier()
        tier.touch(keys("a", 5), ReqContext("r"))
        self.until(lambda: [len(frame.chain.keys) for frame in self.agent.hints if isinstance(frame, p.Touch)] == [5])

    def test_a_finished_request_is_told_and_forgotten(self) -> None:
        tier, names = self.tier(), keys("a", 3)
        context = self.begin(tier, "r")
        self.settle(tier, names, context)
        tier.on_request_finished(context)
        self.until(lambda: len(self.agent.ends) == 1)
        self.assertEqual(tier._tier._requests, {})
        self.assertEqual(tier._client._ledger.requests, {})

    def test_what_a_caller_says_of_the_end_is_told(self) -> None:
        tier = self.tier()
        context = self.begin(tier, "r", ends="branch")
        self.settle(tier, keys("a", 1), context)
        tier.on_request_finished(context)
        self.until(lambda: [end.reason for end in self.agent.ends] == [p.StopReason.BRANCH_ENDED])

    # ---- jobs

    def test_what_was_stored_comes_back_where_the_engine_wants_it(self) -> None:
        tier, names = self.tier(), keys("a", 5)
        context = self.begin(tier, "r")
        stored = self.store(tier, names, context)
        self.assertTrue(stored.success)
        self.assertEqual(self.settle(tier, names, context), [HIT] * 5)
        tier.submit_load(self.job([names[3], names[0], names[4]], [30, 31, 20], context, loads=True))
        loaded = self.ends(tier)[0]
        self.assertTrue(loaded.success)
        self.assertEqual([self.row(number) for number in (30, 31, 20)], [4, 1, 5])
        # vLLM's metrics are made of these.
        for result, count in ((stored, 5), (loaded, 3)):
            self.assertEqual(result.transfer_bytes, count * ROW)
            self.assertGreater(result.transfer_time, 0)

    def test_a_second_store_of_the_same_chunk_succeeds(self) -> None:
        tier, names = self.tier(), keys("a", 3)
        context = self.begin(tier, "r")
        self.assertTrue(self.store(tier, names, context).success)
        self.assertTrue(self.store(tier, names, self.begin(tier, "s"), 8).success)

    def test_rows_of_a_store_stay_pinned_until_the_agent_has_them(self) -> None:
        tier, names = self.tier(), keys("a", 2)
        self.agent.holds = True
        tier.submit_store(self.job(names, [0, 1], self.begin(tier, "r"), loads=False))
        self.until(lambda: len(self.agent.held) == 1)
        self.assertEqual(list(tier.get_finished_jobs()), [])
        self.agent.holds = False
        peer, frame = self.agent.held.pop()
        peer.take(frame)
        self.assertTrue(self.ends(tier)[0].success)

    def test_every_end_is_told_once_whichever_thread_asks(self) -> None:
        tier = self.tier()
        self.assertTrue(HoldfastTier.tolerates_off_thread_polling)
        context, lock, told = self.begin(tier, "r"), threading.Lock(), []
        is_over = threading.Event()

        def poll() -> None:
            while not is_over.is_set():
                with lock:
                    told.extend(tier.get_finished_jobs())
                time.sleep(0)

        poller = threading.Thread(target=poll)
        poller.start()
        jobs = [self.job(keys(f"j{number}-", 2), [0, 1], context, loads=False) for number in range(50)]
        for job in jobs:
            with lock:
                tier.submit_store(job)
                told.extend(tier.get_finished_jobs())
        self.until(lambda: len(told) >= len(jobs))
        is_over.set()
        poller.join()
        self.assertEqual(sorted(result.job_id for result in told), [job.job_id for job in jobs])

    def test_loads_under_way_keep_the_engine_stepping(self) -> None:
        tier, names = self.tier(), keys("a", 2)
        context = self.begin(tier, "r")
        self.store(tier, names, context)
        self.settle(tier, names, context)
        self.assertFalse(tier.has_pending_work())
        tier.submit_load(self.job(names, [4, 5], context, loads=True))
        self.assertTrue(tier.has_pending_work())
        self.ends(tier)
        self.assertFalse(tier.has_pending_work())

    def test_draining_waits_for_the_last_byte_and_every_job_is_told(self) -> None:
        tier = self.tier()
        context = self.begin(tier, "r")
        self.agent.holds = True
        for number in range(4):
            tier.submit_store(self.job(keys(f"d{number}-", 2), [0, 1], context, loads=False))
        self.until(lambda: len(self.agent.held) == 4)
        drained = threading.Event()
        drainer = threading.Thread(target=lambda: (tier.drain_jobs(), drained.set()))
        drainer.start()
        self.agent.holds = False
        while self.agent.held:
            self.assertFalse(drained.is_set(), "it ended while the agent was at the region")
            peer, frame = self.agent.held.pop()
            peer.take(frame)
        drainer.join(20)
        self.assertTrue(drained.is_set())
        self.assertEqual([result.success for result in tier.get_finished_jobs()], [True] * 4)

    # ---- what fails

    def test_a_failed_promotion_is_a_miss_from_then_on(self) -> None:
        tier, names = self.tier(), keys("a", 3)
        context = self.begin(tier, "r")
        self.store(tier, names, context)
        self.assertEqual(self.settle(tier, names, context), [HIT] * 3)
        self.agent.blocks.clear()
        tier.submit_load(self.job(names, [8, 9, 10], context, loads=True))
        result = self.ends(tier)[0]
        self.assertFalse(result.success)
        self.assertIsNone(result.successful_keys)
        self.assertEqual(self.settle(tier, names, context), [MISS] * 3)

    def test_of_a_partly_failed_promotion_the_engine_keeps_what_came(self) -> None:
        tier, names = self.tier(), keys("a", 4)
        context = self.begin(tier, "r")
        self.store(tier, names, context)
        self.settle(tier, names, context)
        self.agent.drop(list(self.agent.blocks)[2:])
        tier.submit_load(self.job(names, [8, 9, 10, 11], context, loads=True))
        result = self.ends(tier)[0]
        self.assertFalse(result.success)
        self.assertEqual(list(result.successful_keys), names[:2])
        self.assertEqual([self.row(8), self.row(9)], [1, 2])
        self.assertEqual(self.settle(tier, names, context), [HIT] * 2 + [MISS] * 2)

    def test_a_late_promotion_fails_only_when_the_agent_says_that_nothing_will_be_written(self) -> None:
        tier, names = self.tier(load_deadline=0.05), keys("a", 2)
        context = self.begin(tier, "r")
        self.store(tier, names, context)
        self.settle(tier, names, context)
        self.agent.holds = self.agent.holds_cancels = True
        tier.submit_load(self.job(names, [8, 9], context, loads=True))
        self.until(lambda: any(isinstance(frame, p.Cancel) for frame in self.agent.heard))
        self.assertEqual(list(tier.get_finished_jobs()), [], "its rows would be given to others")
        self.assertTrue(tier.has_pending_work())
        self.agent.acknowledge()
        self.assertFalse(self.ends(tier)[0].success)
        self.assertEqual(self.settle(tier, names, context), [MISS] * 2)

    def test_jobs_of_a_dead_agent_fail_when_it_is_gone(self) -> None:
        tier, names = self.tier(), keys("a", 2)
        context = self.begin(tier, "r")
        self.store(tier, names, context)
        self.settle(tier, names, context)
        self.agent.holds = True
        tier.submit_load(self.job(names, [8, 9], context, loads=True))
        tier.submit_store(self.job(keys("b", 2), [0, 1], context, loads=False))
        self.until(lambda: len(self.agent.held) == 2)
        # Its connection is gone and something listens there still: it may be alive, and at the rows.
        self.agent.is_mute = True
        self.agent.cut()
        self.until(lambda: not tier._client.is_open)
        self.assertEqual(list(tier.get_finished_jobs()), [])
        self.agent.stop()
        self.assertEqual([result.success for result in self.ends(tier, 2)], [False] * 2)
        self.assertEqual(self.settle(tier, keys("c", 2), self.begin(tier, "s")), [MISS] * 2)

    def test_without_an_agent_look_ups_miss_and_stores_fail_at_once(self) -> None:
        self.agent.stop()
        os.unlink(self.socket)
        tier, names = self.tier(), keys("a", 3)
        context = self.begin(tier, "r")
        self.assertEqual([tier.lookup(name, context) for name in names], [MISS] * 3)
        self.step(tier)
        job = self.job(names, [0, 1, 2], context, loads=False)
        tier.submit_store(job)
        self.assertEqual([(end.job_id, end.success) for end in tier.get_finished_jobs()], [(job.job_id, False)])
        tier.drain_jobs()

    def test_damaged_blocks_end_the_attach(self) -> None:
        self.agent.damages = True
        tier = HoldfastTier(
            spec_of(), self.memory.view.cast("B", (ROWS, ROW)), "HoldfastTier", socket=self.socket,
            region_path=f"/proc/self/fd/{self.memory.fd}",
        )  # fmt: skip
        self.addCleanup(tier.shutdown)
        self.until(lambda: tier._client.is_distrusted)
        self.assertEqual(tier.lookup(keys("a", 1)[0], self.begin(tier, "r")), MISS)

    # ---- events

    def test_events_tell_what_was_stored_and_what_the_agent_dropped_by_itself(self) -> None:
        tier = self.tier(enable_kv_events=True, locality="LOCAL")
        names = keys("a", 3)
        self.store(tier, names, self.begin(tier, "r"))
        stored = list(tier.take_events())
        self.assertEqual([(each.keys, each.medium, each.removed, each.locality) for each in stored],
                         [(names, Medium.STORAGE, False, Locality.LOCAL)])  # fmt: skip
        self.agent.drop(list(self.agent.blocks)[1:])
        removed: list[Any] = []
        self.until(lambda: removed.extend(tier.take_events()) or removed)
        self.assertEqual([(each.keys, each.medium, each.removed, each.locality) for each in removed],
                         [(names[1:], Medium.STORAGE, True, Locality.LOCAL)])  # fmt: skip
        self.assertEqual(list(tier.take_events()), [])

    def test_there_are_no_events_where_vllm_publishes_none(self) -> None:
        for tier in (self.tier(), self.tier(spec_of(events=False), enable_kv_events=True)):
            self.store(tier, keys("a", 2), self.begin(tier, "r"))
            self.assertEqual(list(tier.take_events()), [])

    # ---- identity

    def test_the_same_bytes_in_another_dtype_or_order_are_no_hit(self) -> None:
        names = keys("a", 3)
        tier = self.tier(spec_of(dtype="fp8_e4m3", order="LBNHC"))
        self.store(tier, names, self.begin(tier, "r"))
        for change in ({"dtype": "fp8_e5m2"}, {"order": "LBHNC"}):
            other = self.tier(spec_of(**({"dtype": "fp8_e4m3", "order": "LBNHC"} | change)))
            self.assertEqual(self.settle(other, names, self.begin(other, "r")), [MISS] * 3, change)
        same = self.tier(spec_of(dtype="fp8_e4m3", order="LBNHC"))
        self.assertEqual(self.settle(same, names, self.begin(same, "r")), [HIT] * 3)

    def test_whatever_changes_the_bytes_of_a_block_is_another_namespace(self) -> None:
        variants: list[dict[str, Any]] = [
            {}, {"model": "m/n"}, {"dtype": "float16"}, {"tokens": 32}, {"per_chunk": 2}, {"layers": 3}, {"groups": 2},
            {"ranks": 2}, {"stages": 2}, {"canonical": True}, {"order": "LBNHC"}, {"order": "LBHNC"}, {"dtype": "fp8_e4m3"},
            {"dtype": "fp8_e5m2"},
        ]  # fmt: skip
        digests = {namespace_digest(namespace_fields(spec_of(**each), ROW, "")) for each in variants}
        digests |= {namespace_digest(namespace_fields(spec_of(), size, salt)) for size, salt in ((2 * ROW, ""), (ROW, "t"))}
        said = [{"revision": "r"}, {"tokenizer": "t"}, {"kv_scales": "s"}]
        digests |= {namespace_digest(namespace_fields(spec_of(), ROW, "", **each)) for each in said}
        self.assertEqual(len(digests), len(variants) + 2 + len(said))
        scales = {dtype: namespace_fields(spec_of(dtype=dtype), ROW, "")["kv_scales"] for dtype in ("bfloat16", "fp8_e4m3")}
        self.assertEqual(scales, {"bfloat16": "", "fp8_e4m3": "checkpoint"})
        # Names do not depend on what else a process has: the same fields give the same digest.
        self.assertEqual(namespace_fields(spec_of(), ROW, ""), namespace_fields(spec_of(), ROW, ""))


if __name__ == "__main__":
    unittest.main(verbosity=2)
