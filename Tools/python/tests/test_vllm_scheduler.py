"""The scheduler's half of vLLM's connector against an agent in memory: namespaces, look-ups, ends.

On the stand-in of ``stubs.vllm`` where vLLM is not installed, on the real package where it is. The connector inside vLLM's own
engine is in ``engines/vllm_cpu_engine.py``.
"""

from __future__ import annotations

import sys
import time
import unittest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import stubs.vllm
from memory_agent import AgentTest

if not stubs.is_installed("vllm"):
    stubs.vllm.install()

from vllm.v1.kv_cache_interface import AttentionSpec

from holdfast_kv import protocol as p
from holdfast_kv.namespace import EngineKeys, namespace_digest
from holdfast_kv.vllm.plan import Shape
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
        request = request_of("r", 3, kv_transfer_params={"session": "s", "turn": 1}, num_cached_tokens=48)
        scheduler.match(request, 0)
        scheduler.end(request)
        self.assertTrue(scheduler.client.ping().result(15))
        asked = [frame for frame in self.agent.heard if isinstance(frame, p.LookUp)]
        self.assertEqual({(each.chain.group, each.chain.shard) for each in asked}, {(0, 0), (0, 1), (1, 0), (1, 1)})
        self.assertEqual([each.prompt_tokens for each in asked], [49, 0, 0, 0])
        self.assertEqual({(len(each.chain.keys), each.turn) for each in asked}, {(3, 1)})
        self.assertEqual([end.cached_tokens for end in self.agent.ends], [48, -1, -1, -1])
        self.assertEqual([end.ticket for end in self.agent.ends], [each.ticket for each in asked])


if __name__ == "__main__":
    unittest.main(verbosity=2)
