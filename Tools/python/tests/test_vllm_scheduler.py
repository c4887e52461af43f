"""The scheduler's half of vLLM's connector against an agent in memory: namespaces, look-ups, ends.

On the stand-in of ``stubs.vllm`` where vLLM is not installed, on the real package where it is. The connector inside vLLM's own
engine is in ``engines/vllm_cpu_engine.py``.
"""

from __future__ import annotations

import sys
import time
import unittest
import unittest.mock
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import stubs.vllm
from memory_agent import AgentTest

if not stubs.is_installed("vllm"):
    stubs.vllm.install()
if not stubs.is_installed("torch"):
    sys.modules["torch"] = ModuleType("torch")

from vllm.v1.kv_cache_interface import AttentionSpec

from holdfast_kv import protocol as p
from holdfast_kv.namespace import EngineKeys, namespace_digest
from holdfast_kv.vllm.loads import Loads
from holdfast_kv.vllm.plan import Move, Shape
from holdfast_kv.vllm.scheduler import Scheduler

TOKENS, ROW = 16, 8192


class Spec(AttentionSpec):
    """A group's layers, with what the connector reads of them."""

    page_size_bytes = ROW // 2

    def __init__(self, dtype: str) -> None:
        for name, value in {"block_size": TOKENS, "num_kv_heads": 4, "head_size": 16, "dtype": dtype}.items():
            object.__setattr__(self, name, value)


def shape_of(
    *, dtype: str = "torch.bfloat16", cache_dtype: str = "auto", order: str | None = "LBNHC", ranks: int = 1, groups: int = 1,
    salt: str = "", skips: tuple[str, ...] = (), calculated: bool = False, **model: str,
) -> Shape:  # fmt: skip
    """The shape of an engine, of as much of its configuration as the connector reads."""
    about = {"model": "m/m", "tokenizer": "m/m", "revision": None, "tokenizer_revision": None} | model
    config = SimpleNamespace(
        parallel_config=SimpleNamespace(tensor_parallel_size=ranks, pipeline_parallel_size=1),
        model_config=SimpleNamespace(**about),
        cache_config=SimpleNamespace(
            prefix_caching_hash_algo="sha256", cache_dtype=cache_dtype, kv_cache_dtype_skip_layers=list(skips),
            calculate_kv_scales=calculated,
        ),
    )  # fmt: skip
    layers = [SimpleNamespace(kv_cache_spec=Spec(dtype), layer_names=["a", "b"]) for _ in range(groups)]
    return Shape(config, SimpleNamespace(kv_cache_groups=layers, num_blocks=64, kv_cache_layout=order), salt)


def request_of(name: str, blocks: int, **more: Any) -> Any:
    """A request as vLLM's scheduler has it, of whole blocks and one token."""
    about = {
        "request_id": name, "num_tokens": blocks * TOKENS + 1, "kv_transfer_params": None, "all_token_ids": [],
        "block_hashes": [bytes([number + 1]) * 32 for number in range(blocks)], "num_output_tokens": 0, "arrival_time": time.time(),
    }  # fmt: skip
    return SimpleNamespace(**about | more)


def step_of(request: Any, *, computed: int = 0, is_new: bool = True) -> Any:
    """A step of vLLM's scheduler with one request, new or running."""
    blocks = tuple(range(1, len(request.block_hashes) + 1))
    new = SimpleNamespace(req_id=request.request_id, block_ids=[blocks], num_computed_tokens=computed)
    running = SimpleNamespace(req_ids=[request.request_id], new_block_ids=[None], num_computed_tokens=[request.num_tokens])
    return SimpleNamespace(
        scheduled_new_reqs=[new] if is_new else [],
        scheduled_cached_reqs=SimpleNamespace(req_ids=[]) if is_new else running,
        num_scheduled_tokens={request.request_id: request.num_tokens - computed if is_new else 1},
    )


class SchedulerTest(AgentTest):
    def scheduler(self, shape: Shape) -> Scheduler:
        scheduler = Scheduler(shape, {"socket": self.socket, "lookup_deadline": 15.0, "lookup_wait": 15.0})
        self.addCleanup(scheduler.close)
        self.assertTrue(scheduler.client.wait_open(15))
        return scheduler

    def keep(self, shape: Shape, blocks: int) -> None:
        """What the workers of an engine save of a prompt."""
        make = EngineKeys(namespace_digest(shape.fields))
        for number in range(blocks):
            for group in range(len(shape.layers)):
                for shard in range(shape.shards):
                    self.agent.blocks[(make(bytes([number + 1]) * 32), group, shard)] = bytes(ROW)

    def matched(self, shape: Shape, blocks: int = 3) -> int | None:
        scheduler = self.scheduler(shape)
        request = request_of("r", blocks)
        found = scheduler.match(request, 0)[0]
        scheduler.end(request)
        return found

    # ---- identity

    def test_the_same_bytes_that_mean_something_else_are_no_hit(self) -> None:
        fp8 = {"dtype": "torch.uint8", "cache_dtype": "fp8_e4m3"}
        self.keep(shape_of(), 3)
        self.keep(shape_of(**fp8), 3)
        self.assertEqual([self.matched(shape_of()), self.matched(shape_of(**fp8))], [48, 48])
        for change in (
            {"dtype": "torch.float16"}, fp8 | {"cache_dtype": "fp8_e5m2"}, fp8 | {"cache_dtype": "fp8"},
            fp8 | {"cache_dtype": "int4_per_token_head"}, fp8 | {"skips": ("0",)}, {"order": "LBHNC"}, {"revision": "r"},
            {"tokenizer": "t"}, {"tokenizer_revision": "r"}, {"model": "m/n"}, {"salt": "s"},
        ):  # fmt: skip
            self.assertEqual(self.matched(shape_of(**change)), 0, change)

    def test_both_halves_have_one_namespace_when_a_worker_alone_has_resolved_the_dtype(self) -> None:
        halves = [shape_of(dtype="torch.uint8", cache_dtype=said).fields for said in ("auto", "fp8")]
        self.assertEqual(*halves)
        self.assertEqual((halves[0]["kv_dtype"], halves[0]["kv_scales"]), ("fp8", "checkpoint"))

    def test_with_scales_that_each_process_calculates_nothing_is_kept(self) -> None:
        shape = shape_of(dtype="torch.uint8", cache_dtype="fp8", calculated=True)
        self.assertIn("scales", shape.reason)
        self.keep(shape, 3)
        self.assertEqual(self.matched(shape), 0)

    # ---- one prompt

    def test_a_prompt_of_many_parts_is_one_prompt(self) -> None:
        scheduler = self.scheduler(shape_of(ranks=2, groups=2))
        request = request_of("r", 3, kv_transfer_params={"session": "s", "turn": 1, "ends": "branch"})
        scheduler.match(request, 0)
        scheduler.plan(step_of(request, computed=48))
        scheduler.end(request)
        self.assertTrue(scheduler.client.ping().result(15))
        asked = [frame for frame in self.agent.heard if isinstance(frame, p.LookUp)]
        self.assertEqual({(each.chain.group, each.chain.shard) for each in asked}, {(0, 0), (0, 1), (1, 0), (1, 1)})
        self.assertEqual([each.prompt_tokens for each in asked], [49, 0, 0, 0])
        self.assertEqual({(len(each.chain.keys), each.turn) for each in asked}, {(3, 1)})
        self.assertEqual([end.cached_tokens for end in self.agent.ends], [48, -1, -1, -1])
        self.assertEqual([end.ticket for end in self.agent.ends], [each.ticket for each in asked])
        self.assertEqual({end.reason for end in self.agent.ends}, {p.StopReason.BRANCH_ENDED})

    def test_loads_and_saves_name_the_look_up_of_their_group_and_shard(self) -> None:
        shape = shape_of(ranks=2, groups=2)
        self.keep(shape, 2)
        scheduler = self.scheduler(shape)
        request = request_of("r", 3)
        self.assertEqual(scheduler.match(request, 0), (32, True))
        blocks = SimpleNamespace(get_block_ids=lambda: ([1, 2, 3], [4, 5, 6]))
        scheduler.allocated(request, blocks, 32)
        step = step_of(request, computed=32)
        step.scheduled_new_reqs[0].block_ids = [(1, 2, 3), (4, 5, 6)]
        plan = scheduler.plan(step)
        asked = {(each.chain.group, each.chain.shard): each.ticket for each in self.agent.heard if isinstance(each, p.LookUp)}
        self.assertEqual([(move.group, move.first, move.blocks) for move in plan.loads], [(0, 0, (1, 2)), (1, 0, (4, 5))])
        self.assertEqual([(move.group, move.first, move.blocks) for move in plan.saves], [(0, 2, (3,)), (1, 2, (6,))])
        for move in [*plan.loads, *plan.saves]:
            self.assertEqual(move.tickets, (asked[move.group, 0], asked[move.group, 1]))
            self.assertEqual(move.asker, scheduler.client.number)
            self.assertGreater(move.asker, 0)
        scheduler.end(request)

    def test_a_workers_loads_are_its_schedulers(self) -> None:
        """In place where the arena has rows, staged where it has none, and the rest of a load through few rows."""
        heard: list[tuple[str, int, int, int]] = []

        def ask(kind: str) -> Any:
            def asked(*about: Any, request: int, asker: int) -> SimpleNamespace:
                heard.append((kind, about[1], request, asker))
                return SimpleNamespace(done=lambda: kind == "take", result=lambda: None)

            return asked

        worker = SimpleNamespace(
            naming=lambda move: None, chain=lambda move, naming, count: None, ticket=lambda move: move.tickets[1],
            arena=SimpleNamespace(rows=lambda: object()), client=SimpleNamespace(take=ask("take"), load=ask("load")),
            staging=SimpleNamespace(free=2, acquire=lambda count: list(range(count)), places=lambda slots: None),
        )  # fmt: skip
        loads = Loads(worker)  # type: ignore[arg-type]
        loads.begin([Move("r", 0, (), 3, (1, 2, 3, 4), tickets=(7, 8), asker=5)])
        loads.finished()
        self.assertEqual(heard, [("take", 3, 8, 5), ("load", 3, 8, 5)])

    # ---- ends

    def end(self, request: Any, *steps: Any, output: int = 0) -> p.Finished:
        """What the agent is told of a request that ends behind these steps, with so many tokens of an answer."""
        scheduler = self.scheduler(shape_of())
        scheduler.match(request, 0)
        for step in steps:
            scheduler.plan(step)
            request.num_output_tokens += 1
        request.num_output_tokens = output or request.num_output_tokens
        scheduler.end(request)
        self.assertTrue(scheduler.client.ping().result(15))
        return self.agent.ends[-1]

    def test_an_end_tells_what_the_scheduler_knows_of_its_request(self) -> None:
        request = request_of("r", 3, arrival_time=time.time() - 100)
        with unittest.mock.patch("holdfast_kv.vllm.compat.time.time", side_effect=[request.arrival_time + 2.5, 1e12]):
            end = self.end(request, step_of(request, computed=32), step_of(request, is_new=False), step_of(request, is_new=False))
        self.assertEqual((end.cached_tokens, end.answer_tokens, end.reason), (32, 3, p.StopReason.UNKNOWN))
        # The time of the first step behind the first token, not that of the last.
        self.assertAlmostEqual(end.time_to_first_token / 1e9, 2.5, places=3)

    def test_the_first_token_of_an_answer_of_one_is_seen_at_the_end(self) -> None:
        request = request_of("r", 3)
        with unittest.mock.patch("holdfast_kv.vllm.compat.time.time", return_value=request.arrival_time + 0.25):
            end = self.end(request, step_of(request))
        self.assertAlmostEqual(end.time_to_first_token / 1e9, 0.25, places=3)

    def test_of_a_request_that_was_never_scheduled_nothing_is_said(self) -> None:
        end = self.end(request_of("r", 3, kv_transfer_params={"ends": "what", "resumes_after": "soon"}))
        self.assertEqual(
            (end.cached_tokens, end.answer_tokens, end.time_to_first_token, end.reason, end.resumes_after),
            (-1, 0, 0, p.StopReason.UNKNOWN, 0),
        )

    def test_what_a_caller_says_of_the_end_is_told(self) -> None:
        end = self.end(request_of("r", 3, kv_transfer_params={"ends": "tool", "resumes_after": 1.5}))
        self.assertEqual((end.reason, end.resumes_after), (p.StopReason.TOOL_USE, 1_500_000_000))


if __name__ == "__main__":
    unittest.main(verbosity=2)
