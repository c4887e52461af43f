"""vLLM's own engine on a CPU, dummy weights, over ``HoldfastConnector`` as README.md configures it and the agent at ``HOLDFAST_SOCKET`` (or one in memory).

Tokens are equal when their blocks come from the agent, differ when those bytes are damaged on their way into the cache
(which shows that they are read), and are equal again without an agent.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
import time
import unittest
from types import SimpleNamespace

os.environ.update(
    VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1", VLLM_ENABLE_V1_MULTIPROCESSING="0", OMP_NUM_THREADS="2",
    VLLM_CPU_OMP_THREADS_BIND="nobind", VLLM_NO_USAGE_STATS="1",
)  # fmt: skip
sys.path[:0] = [os.path.join(os.path.dirname(__file__), ".."), os.path.join(os.path.dirname(__file__), "../..")]

import msgspec
import readme
import torch
import zmq
from memory_agent import MemoryAgent
from vllm import LLM, SamplingParams, TokensPrompt
from vllm.config import KVEventsConfig, KVTransferConfig
from vllm.distributed.kv_events import BlockRemoved, BlockStored, KVEventBatch
from vllm.distributed.kv_transfer import get_kv_transfer_group

from holdfast_kv.vllm import connector as ours

MODEL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1000,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-18, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
    "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip


def sensitive(model: torch.nn.Module) -> None:
    """Weights with which tokens depend on what attention reads: norms of one, small embeddings."""
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.data.fill_(1.0)
        elif "embed_tokens" in name:
            weight.data.mul_(1e-3)


class EngineTest(unittest.TestCase):
    max_model_len, cache_blocks, has_events = 512, 64, True

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.socket = os.environ.get("HOLDFAST_SOCKET", "")
        cls.agent = None
        if not cls.socket:
            cls.socket = os.path.join(cls.folder.name, "agent.sock")
            cls.agent = MemoryAgent(cls.socket)
        with open(os.path.join(cls.folder.name, "config.json"), "w", encoding="utf-8") as file:
            json.dump(MODEL, file)
        _, written = readme.configurations("--kv-transfer-config")
        written["kv_connector_extra_config"] |= {
            "socket": cls.socket, "lookup_deadline": 30.0, "tenant_salt": str(os.getpid()), "enable_kv_events": cls.has_events,
        }  # fmt: skip
        transfer = KVTransferConfig(**written)
        # A router as routers are: it subscribes to the engine's own socket.
        cls.router = zmq.Context.instance().socket(zmq.SUB)
        cls.router.setsockopt_string(zmq.SUBSCRIBE, "")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        cls.engine = LLM(
            model=cls.folder.name, load_format="dummy", skip_tokenizer_init=True, enforce_eager=True,
            max_model_len=cls.max_model_len,
            max_num_seqs=4, block_size=32, kv_transfer_config=transfer, enable_prefix_caching=True, dtype="bfloat16",
            num_gpu_blocks_override=cls.cache_blocks, kv_events_config=KVEventsConfig(
                enable_kv_cache_events=True, publisher="zmq", endpoint=f"tcp://*:{port}", topic="kv@pod@m",
            ),
        )  # fmt: skip
        cls.router.connect(f"tcp://127.0.0.1:{port}")
        # Dummy norms make what attention reads vanish, and the residual would decide: tokens were equal whatever the cache
        # held. The test with damaged blocks shows that they are not.
        cls.engine.apply_model(sensitive)
        cls.worker = get_kv_transfer_group().worker
        assert cls.worker.client.wait_open(30.0)
        assert cls.worker.client.checked is True, "no block was compared at the attach"
        core = cls.engine.llm_engine.engine_core.engine_core
        assert core.scheduler.connector.scheduler.client.wait_open(30.0)

    def tokens(self, seed: int, length: int = 300, **more: str) -> list[int]:
        prompt = TokensPrompt(prompt_token_ids=[10 + (seed * 131 + at * 7) % 900 for at in range(length)], **more)
        sampling = SamplingParams(max_tokens=16, ignore_eos=True, temperature=0, detokenize=False)
        outputs = self.engine.generate([prompt], sampling, use_tqdm=False)
        return list(outputs[0].outputs[0].token_ids)

    def saved(self, count: int) -> None:
        deadline = time.monotonic() + 10
        while self.worker.counts["saved"] < count and time.monotonic() < deadline:
            self.worker.finished()
            time.sleep(0.001)
        self.assertGreaterEqual(self.worker.counts["saved"], count)

    def reset(self) -> None:
        self.assertTrue(self.engine.reset_prefix_cache())

    def test_1_tokens_are_equal_when_blocks_come_from_the_agent(self) -> None:
        for seed in range(3):
            before = dict(self.worker.counts)
            computed = self.tokens(seed)
            self.saved(before["saved"] + 9)
            self.reset()
            again = self.tokens(seed)
            self.assertEqual(again, computed)
            # 300 tokens are nine blocks of 32; the last one behind them is computed.
            self.assertEqual(self.worker.counts["loaded"] - before["loaded"], 9)
            self.reset()
        # Some of them went straight into the agent's memory and were read there; the rest were copied by the agent.
        self.assertGreater(self.worker.counts["adopted"], 0)
        self.assertGreater(self.worker.counts["lent"], 0)
        print(f"blocks: {self.worker.counts}")

    def test_1a_an_end_tells_what_vllm_knows_of_its_request(self) -> None:
        if self.agent is None:
            self.skipTest("needs an agent in memory")
        scheduler = self.engine.llm_engine.engine_core.engine_core.scheduler.connector.scheduler
        # The ends of the requests before are on their way.
        self.assertTrue(scheduler.client.ping().result(30))
        saved, ends = self.worker.counts["saved"], len(self.agent.ends)
        began = time.monotonic()
        for _ in range(2):
            self.tokens(31)
            self.saved(saved + 9)
            self.reset()
        took = time.monotonic() - began
        self.assertTrue(scheduler.client.ping().result(30))
        first, second = self.agent.ends[ends:]
        self.assertEqual([(end.cached_tokens, end.answer_tokens) for end in (first, second)], [(0, 16), (9 * 32, 16)])
        for end in (first, second):
            self.assertTrue(0 < end.time_to_first_token / 1e9 < took, end)

    def test_1b_a_prompt_with_another_salt_is_another_prompt(self) -> None:
        saved, loaded = self.worker.counts["saved"], self.worker.counts["loaded"]
        computed = self.tokens(30, cache_salt="one")
        self.saved(saved + 9)
        for salt, blocks in (("other", 0), ("one", 9)):
            self.reset()
            self.assertEqual(self.tokens(30, cache_salt=salt), computed)
            self.assertEqual(self.worker.counts["loaded"] - loaded, blocks, f"salt {salt}")
        self.reset()

    def test_2_tokens_differ_when_their_blocks_are_damaged(self) -> None:
        write = ours.Layer.write
        seen: list[bool] = []

        def damaged(layer: ours.Layer, blocks: torch.Tensor, rows: torch.Tensor) -> None:
            flipped = rows.clone()
            flipped.view(torch.bfloat16)[:] = -flipped.view(torch.bfloat16) * 3
            write(layer, blocks, flipped)
            # What attention will read is the damaged bytes, and they are others than those that came.
            seen.append(torch.equal(layer.read(blocks), flipped) and not torch.equal(flipped, rows))

        different = 0
        for seed in range(10, 14):
            saved = self.worker.counts["saved"]
            computed = self.tokens(seed)
            self.saved(saved + 9)
            self.reset()
            ours.Layer.write = damaged
            try:
                different += self.tokens(seed) != computed
            finally:
                ours.Layer.write = write
            self.reset()
            self.assertEqual(self.tokens(seed), computed)
            self.reset()
        self.assertTrue(seen and all(seen))
        self.assertEqual(different, 4)

    def test_3_many_requests_at_once(self) -> None:
        prompts = [
            TokensPrompt(prompt_token_ids=[10 + (number * 17 + at * at) % 900 for at in range(100 + 40 * number)])
            for number in range(8)
        ]
        sampling = SamplingParams(max_tokens=40, ignore_eos=True, temperature=0, detokenize=False)
        first = [list(out.outputs[0].token_ids) for out in self.engine.generate(prompts, sampling, use_tqdm=False)]
        self.worker.client.drain(10)
        self.worker.finished()
        self.reset()
        loaded = self.worker.counts["loaded"]
        second = [list(out.outputs[0].token_ids) for out in self.engine.generate(prompts, sampling, use_tqdm=False)]
        self.assertEqual(first, second)
        self.assertGreater(self.worker.counts["loaded"], loaded + 40)
        self.reset()

    def told(self) -> list[object]:
        """What the router was told since the last call."""
        events: list[object] = []
        while self.router.poll(50):
            topic, _, payload = self.router.recv_multipart()
            self.assertEqual(topic, b"kv@pod@m")
            events += msgspec.msgpack.Decoder(KVEventBatch).decode(payload).events
        return events

    def test_3b_routers_hear_what_the_agent_keeps_and_what_it_drops_by_itself(self) -> None:
        stored: dict[object, list[int]] = {}
        removed: set[object] = set()
        for seed in range(50, 100):
            prompt = [10 + (seed * 131 + at * 7) % 900 for at in range(300)]
            self.tokens(seed)
            self.worker.client.drain(10)
            if self.agent is not None and seed > 60:
                self.agent.drop(list(self.agent.blocks)[:5])
            self.tokens(seed, 40)  # a step more, in which the engine asks for events
            for event in self.told():
                if isinstance(event, BlockStored) and event.medium == "STORAGE":
                    self.assertEqual((len(event.block_hashes), event.block_size, len(event.token_ids)), (1, 32, 32))
                    stored[event.block_hashes[0]] = list(event.token_ids)
                    if event.parent_block_hash is None and event.token_ids[0] == prompt[0]:
                        self.assertEqual(list(event.token_ids), prompt[:32])
                elif isinstance(event, BlockRemoved) and event.medium == "STORAGE":
                    removed.update(event.block_hashes)
            if removed & set(stored):
                break
        # What left was there before; the engine itself dropped nothing of ours, the agent did.
        self.assertGreater(len(stored), 9)
        self.assertTrue(removed & set(stored), "the agent drops blocks and nobody hears of it")
        self.reset()

    def test_3c_each_rank_of_a_tensor_parallel_engine_has_its_part(self) -> None:
        core = self.engine.llm_engine.engine_core.engine_core
        whole, cache = core.vllm_config, core.scheduler.kv_cache_config
        # Another shape is another layout: it needs an agent of its own.
        socket = os.environ.get("HOLDFAST_OTHER_SOCKET", "")
        if not socket:
            socket = os.path.join(self.folder.name, "ranks.sock")
            self.addCleanup(MemoryAgent(socket).stop)
        extra = {"socket": socket, "lookup_deadline": 30.0}
        ranks = []
        for rank in range(2):
            config = SimpleNamespace(
                parallel_config=SimpleNamespace(rank=rank, tensor_parallel_size=2, pipeline_parallel_size=1),
                model_config=whole.model_config, cache_config=whole.cache_config,
            )  # fmt: skip
            shape = ours.Shape(config, cache, f"ranks {os.getpid()}")
            worker = ours.Worker(shape, extra, config)
            self.addCleanup(worker.close)
            self.assertTrue(worker.client.wait_open(30))
            self.assertIs(worker.client.checked, True, "no block was compared at the attach")
            page = shape.row // len(shape.layers[0])
            caches = {name: torch.randint(0, 255, (shape.count, page), dtype=torch.uint8) for name in shape.layers[0]}
            worker.register(caches)
            ranks.append((worker, caches, {name: tensor.clone() for name, tensor in caches.items()}))
        scheduler = ours.Scheduler(shape, extra)
        self.addCleanup(scheduler.close)
        self.assertTrue(scheduler.client.wait_open(30))
        hashes = tuple(bytes([number]) * 32 for number in range(1, 4))
        for saved, (worker, _, _) in enumerate(ranks):
            worker.save([ours.Move("r", 0, hashes, 0, (1, 2, 3))])
            self.ended(worker, "saved", 3)
            # A prompt is there when every rank's part of it is.
            self.assertEqual(self.matched(scheduler, f"r{saved}", hashes), 3 * 32 * saved)
        for worker, caches, before in ranks:
            for tensor in caches.values():
                tensor.zero_()
            worker.load([ours.Move("r", 0, hashes, 0, (7, 8, 9))])
            self.ended(worker, "loaded", 3)
            for name, tensor in caches.items():
                self.assertTrue(torch.equal(tensor[7:10], before[name][1:4]), name)
                self.assertFalse(tensor[1:7].any(), "blocks that nobody named were written")

    def matched(self, scheduler: ours.Scheduler, name: str, hashes: tuple[bytes, ...]) -> int | None:
        request = SimpleNamespace(
            request_id=name, block_hashes=hashes, num_tokens=3 * 32 + 1, kv_transfer_params=None, all_token_ids=[],
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while (matched := scheduler.match(request, 0)[0]) is None:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.001)
        scheduler.end(request)
        return matched

    def ended(self, worker: ours.Worker, what: str, count: int) -> None:
        deadline = time.monotonic() + 20
        while worker.counts[what] < count:
            self.assertLess(time.monotonic(), deadline, f"{what}: {worker.counts}")
            worker.finished()
            time.sleep(0.001)

    def test_4_the_agent_dies_in_the_middle_and_the_engine_goes_on(self) -> None:
        saved = self.worker.counts["saved"]
        computed = {seed: self.tokens(seed) for seed in range(40, 43)}
        self.saved(saved + 27)
        process = os.environ.get("HOLDFAST_AGENT_PROCESS")
        if self.agent is not None:
            self.agent.holds = True  # loads and look-ups hang, then the agent dies
            threading.Timer(0.2, self.agent.stop).start()
        elif process:
            threading.Timer(0.1, os.kill, (int(process), 9)).start()
        else:
            self.skipTest("needs an agent that may be killed")
        deadline = time.monotonic() + 60
        after = 0
        while after < 2:
            self.assertLess(time.monotonic(), deadline)
            after += not self.worker.client.is_open
            for seed, tokens in computed.items():
                self.reset()
                self.assertEqual(self.tokens(seed), tokens)


if __name__ == "__main__":
    unittest.main(verbosity=2)
