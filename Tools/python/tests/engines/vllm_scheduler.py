"""vLLM's real scheduler and OffloadingConnector over the tier, as README.md configures it: a prompt that left the GPU and the CPU
comes back from the agent, and routers hear on vLLM's own socket what the agent keeps and what it drops.

No GPU: the copies between GPU and CPU that the scheduler asks for are answered as done.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import unittest

sys.path[:0] = [os.path.join(os.path.dirname(__file__), ".."), os.path.join(os.path.dirname(__file__), "../..")]

import msgspec
import numpy as np
import readme
import torch
import zmq
from memory_agent import MemoryAgent
from vllm.config import (
    CacheConfig,
    DeviceConfig,
    KVEventsConfig,
    KVTransferConfig,
    ModelConfig,
    ParallelConfig,
    SchedulerConfig,
    VllmConfig,
)
from vllm.distributed.kv_events import BlockRemoved, BlockStored, KVEventBatch
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import OffloadingWorkerMetadata
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec, KVCacheTensor
from vllm.v1.kv_offload.base import ReqContext, make_offload_key
from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

BLOCK, BLOCKS, ROWS = 16, 64, 64
PAGE = 2 * BLOCK * 2 * 16 * 2
MODEL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1000,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
    "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip


class SchedulerTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.agent: MemoryAgent | None = None
        socket = os.environ.get("HOLDFAST_SOCKET", "")
        if not socket:
            socket = os.path.join(folder.name, "agent.sock")
            self.agent = MemoryAgent(socket)
            self.addCleanup(self.agent.stop)
        with open(os.path.join(folder.name, "config.json"), "w", encoding="utf-8") as file:
            json.dump(MODEL, file)
        self.scheduler = self.make(folder.name, socket)
        self.addCleanup(self.scheduler.shutdown)
        self.manager = self.scheduler.connector.connector_scheduler.manager
        self.tier = self.manager.secondary_tiers[0]
        self.assertTrue(self.tier._client.wait_open(60))

    def make(self, model: str, socket: str) -> Scheduler:
        written, _ = readme.configurations("--kv-transfer-config")
        more = written["kv_connector_extra_config"]
        more["cpu_bytes_to_use"] = ROWS * 4096
        more["secondary_tiers"][0] |= {
            "socket": socket, "enable_kv_events": True, "lookup_deadline": 30.0, "tenant_salt": f"{os.getpid()} {id(self)}",
        }  # fmt: skip
        transfer = KVTransferConfig(**written, engine_id=f"ci-{os.getpid()}-{id(self)}")
        # A router as routers are: it subscribes to vLLM's own socket.
        endpoint = f"ipc://{model}/events"
        self.router = zmq.Context.instance().socket(zmq.SUB)
        self.router.setsockopt_string(zmq.SUBSCRIBE, "")
        self.router.connect(endpoint)
        self.addCleanup(self.router.close, 0)
        config = VllmConfig(
            model_config=ModelConfig(
                model=model, skip_tokenizer_init=True, dtype="bfloat16", seed=0, max_model_len=512
            ),
            cache_config=CacheConfig(
                block_size=BLOCK, gpu_memory_utilization=0.9, cache_dtype="auto", enable_prefix_caching=True
            ),
            scheduler_config=SchedulerConfig(
                max_num_seqs=8, max_num_batched_tokens=512, max_model_len=512, is_encoder_decoder=False,
                enable_chunked_prefill=True,
            ),
            parallel_config=ParallelConfig(), device_config=DeviceConfig("cpu"), kv_transfer_config=transfer,
            kv_events_config=KVEventsConfig(enable_kv_cache_events=True, publisher="zmq", endpoint=endpoint, topic="kv@pod@m"),
        )  # fmt: skip
        config.cache_config.num_gpu_blocks = BLOCKS
        spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=2, head_size=16, dtype=torch.bfloat16)
        tensor = KVCacheTensor(size=PAGE * BLOCKS * 2, layers=["l0", "l1"], layer_stride=PAGE * BLOCKS, block_stride=PAGE)
        cache = KVCacheConfig(
            num_blocks=BLOCKS, kv_cache_tensors=[tensor], kv_cache_groups=[KVCacheGroupSpec(["l0", "l1"], spec)]
        )
        init_none_hash(sha256)
        self.hasher = get_request_block_hasher(BLOCK, sha256)
        return Scheduler(
            vllm_config=config, kv_cache_config=cache, structured_output_manager=StructuredOutputManager(config),
            block_size=BLOCK, hash_block_size=BLOCK, log_stats=True,
        )  # fmt: skip

    def request(self, name: str, tokens: list[int]) -> Request:
        sampling = SamplingParams(max_tokens=2, ignore_eos=True)
        return Request(
            request_id=name, prompt_token_ids=tokens, sampling_params=sampling, pooling_params=None,
            block_hasher=self.hasher,
        )  # fmt: skip

    def step(self) -> tuple[dict[str, int], list[list[int]]]:
        """A step whose copies are done at once: the tokens that it scheduled, and rows that it loaded to the GPU."""
        output = self.scheduler.schedule()
        work = output.kv_connector_metadata
        answer = OffloadingWorkerMetadata()
        received: set[str] = set()
        for job, entry in work.store_jobs.items():
            answer.mark_completed(job)
            rows = np.asarray(self.manager.primary_tier.get_kv_memoryview())
            for block, row in zip(entry.src_spec.block_ids, entry.dst_spec.block_ids, strict=True):
                rows[row, :] = int(block) % 251 + 1  # what a GPU's block holds
        loads = []
        for job, entry in work.load_jobs.items():
            answer.mark_completed(job)
            loads.append([int(row) for row in entry.src_spec.block_ids])
            if not entry.sync:
                received.add(entry.req_id)
        names = list(output.num_scheduled_tokens)
        self.scheduler.update_from_output(output, ModelRunnerOutput(
            req_ids=names, req_id_to_index={name: index for index, name in enumerate(names)},
            sampled_token_ids=[[5] for _ in names], logprobs=None, prompt_logprobs_dict={},
            pooler_output=[None] * len(names),
            kv_connector_output=KVConnectorOutput(
                finished_recving=received or None, kv_connector_worker_meta=answer if answer.completed_jobs else None
            ),
        ))  # fmt: skip
        return dict(output.num_scheduled_tokens), loads

    def run_to_end(self, name: str, tokens: list[int], steps: int = 2000) -> tuple[int, list[list[int]]]:
        """Serves a prompt: the tokens that were computed, and the loads."""
        self.scheduler.add_request(self.request(name, tokens))
        computed, loads = 0, []
        for _ in range(steps):
            if not self.scheduler.has_unfinished_requests():
                break
            scheduled, loaded = self.step()
            computed += scheduled.get(name, 0)
            loads += loaded
            if not scheduled:
                time.sleep(0.001)
        self.assertFalse(self.scheduler.has_unfinished_requests())
        self.step()
        return computed, loads

    def fill(self) -> None:
        for number in range(2, 40):
            self.run_to_end(f"f{number}", [999 - (number * 7 + at) % 800 for at in range(64)])

    def wait_for_tier(self) -> None:
        deadline = time.monotonic() + 20
        while self.tier._tier.open_jobs and time.monotonic() < deadline:
            self.step()
            time.sleep(0.001)

    def test_a_prompt_comes_back_from_the_agent(self) -> None:
        prompt = list(range(100, 164))
        computed, _ = self.run_to_end("first", prompt)
        self.assertGreaterEqual(computed, 64)
        self.wait_for_tier()
        self.fill()
        self.wait_for_tier()
        self.scheduler.reset_prefix_cache()
        again = self.request("again", [*prompt, 3])
        primary = self.manager.primary_tier
        self.assertEqual(
            {primary.lookup(make_offload_key(each, 0), ReqContext("probe")).name for each in again.block_hashes}, {"MISS"}
        )
        computed, loads = self.run_to_end("again", [*prompt, 3])
        # Four blocks come from the agent; the last token and the one that is sampled from it are computed.
        self.assertEqual([len(rows) for rows in loads], [4])
        self.assertEqual(computed, 2)
        rows = np.asarray(primary.get_kv_memoryview())
        for row in loads[0]:
            self.assertEqual(len(set(rows[row].tolist())), 1)
            self.assertGreater(rows[row][0], 0)

    def told(self) -> list[object]:
        """What the router was told of our medium since the last call."""
        events: list[object] = []
        while self.router.poll(20):
            topic, _, payload = self.router.recv_multipart()
            self.assertEqual(topic, b"kv@pod@m")
            events += msgspec.msgpack.Decoder(KVEventBatch).decode(payload).events
        return [event for event in events if getattr(event, "medium", None) == "STORAGE"]

    def test_routers_hear_what_the_agent_keeps_and_what_it_drops_by_itself(self) -> None:
        stored: dict[object, list[int]] = {}
        removed: set[object] = set()
        prompts = {}
        deadline = time.monotonic() + 240
        number = 0
        while not removed & set(stored):
            self.assertLess(time.monotonic(), deadline, f"{number} prompts, {len(stored)} stored, {len(removed)} removed")
            tokens = [10 + (number * 131 + at * (7 + number % 11)) % 900 for at in range(64)]
            prompts[tuple(tokens[:BLOCK])] = number
            self.run_to_end(f"e{number}", tokens)
            self.wait_for_tier()
            if self.agent is not None and number > 10:
                self.agent.drop(list(self.agent.blocks)[:2])
            self.step()
            for event in self.told() if number % 10 == 9 else []:
                if isinstance(event, BlockStored):
                    # Self-describing: a router needs nothing else to know which prompts begin so.
                    self.assertEqual(event.block_size * len(event.block_hashes), len(event.token_ids))
                    for at, each in enumerate(event.block_hashes):
                        stored[each] = list(event.token_ids[at * BLOCK : (at + 1) * BLOCK])
                elif isinstance(event, BlockRemoved):
                    removed.update(event.block_hashes)
            number += 1
        self.assertTrue(any(tuple(tokens) in prompts for tokens in stored.values()))

    def test_when_the_agent_dies_the_prompt_is_computed(self) -> None:
        prompt = list(range(200, 264))
        self.run_to_end("first", prompt)
        self.wait_for_tier()
        self.fill()
        self.wait_for_tier()
        self.scheduler.reset_prefix_cache()
        process = os.environ.get("HOLDFAST_AGENT_PROCESS")
        if self.agent is not None:
            self.agent.holds = True
            import threading

            threading.Timer(0.2, self.agent.stop).start()
        elif process:
            os.kill(int(process), 9)
        else:
            self.skipTest("needs an agent that may be killed")
        computed, loads = self.run_to_end("again", [*prompt, 3], steps=200_000)
        self.assertEqual(loads, [])
        self.assertEqual(computed, 66)


if __name__ == "__main__":
    unittest.main(verbosity=2)
