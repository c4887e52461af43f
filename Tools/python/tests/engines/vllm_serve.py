"""``vllm serve`` as README.md starts it, on a CPU: prompts over HTTP with a shared beginning, which the agent gives back; and a
killed agent, of which no request learns.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import unittest
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import serving
from processes import AgentProcess

BLOCK = 32
SHOWN = 'vllm serve MODEL --kv-transfer-config \'{"kv_connector": "HoldfastConnector"'


def patient(configuration: dict[str, Any]) -> None:
    """A busy machine is no reason for a miss in a test."""
    configuration["kv_connector_extra_config"] |= {"lookup_deadline": 30.0, "load_deadline": 60.0}


def metadata(folder: str) -> str:
    """Says that the package is here by its own name: the build for CPUs has another, and vLLM's command asks for its version."""
    path = os.path.join(folder, "metadata")
    about = Path(path, "vllm-0.32.0+cpu.dist-info")
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    return path


class VllmServeTest(serving.ServingTest):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.model, port = serving.model(cls.folder), serving.free_port()
        words = serving.command(SHOWN, cls.agent.socket, patient)
        assert words[:3] == ["vllm", "serve", "MODEL"], words
        words[0] = str(Path(sys.executable).parent / "vllm")
        words[2] = cls.model
        # What a CPU and a small machine ask for; nothing of it is about the cache.
        words += [
            "--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "4",
            "--block-size", str(BLOCK), "--num-gpu-blocks-override", "64", "--dtype", "bfloat16",
        ]  # fmt: skip
        cls.server = serving.Server(cls.folder, words, port, health="/health", more={
            "PYTHONPATH": metadata(cls.folder), "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "2",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1", "VLLM_SERVER_DEV_MODE": "1",
        })  # fmt: skip
        cls.addClassCleanup(cls.server.stop)

    def ask(self, prompt: str) -> str:
        status, text = self.server.ask("POST", "/v1/completions", {
            "model": self.model, "prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True,
        })  # fmt: skip
        self.assertEqual(status, 200, f"{text}\n{self.server.said()}")
        return str(json.loads(text)["choices"][0]["text"])

    def reset(self) -> None:
        status, text = self.server.ask("POST", "/reset_prefix_cache")
        self.assertEqual((status, json.loads(text or "{}").get("success", True)), (200, True), text)

    def hits(self) -> float:
        """Tokens that vLLM says came from its connector."""
        _, text = self.server.ask("GET", "/metrics")
        lines = [line for line in text.splitlines() if line.startswith("vllm:external_prefix_cache_hits_total")]
        self.assertEqual(len(lines), 1)
        return float(lines[0].split()[-1])

    def test_1_a_shared_beginning_comes_from_the_agent(self) -> None:
        beginning = " ".join(f"w{10 + 7 * number % 900}" for number in range(300))
        serving.wait(lambda: serving.numbers(self.agent).get("engines") == 2, "both halves of the connector are attached")
        size = serving.numbers(self.agent)["block_payload_bytes"]
        before = serving.kept(self.agent)
        first = self.ask(f"{beginning} w11 w12")
        # 302 tokens: nine blocks of 32.
        serving.wait(lambda: serving.kept(self.agent) - before >= 9 * size, "nine blocks are kept")
        self.assertEqual(self.hits(), 0)
        self.reset()
        before = serving.given(self.agent)
        self.assertEqual(self.ask(f"{beginning} w11 w12"), first)
        self.assertEqual(self.hits(), 9 * BLOCK)
        self.reset()
        self.assertNotEqual(self.ask(f"{beginning} w500 w600 w700"), first)
        self.assertEqual(self.hits(), 2 * 9 * BLOCK)
        # Its copies may be counted a moment after the answer.
        serving.wait(lambda: serving.given(self.agent) - before >= 2 * 9 * size, "the agent counts both")
        print(f"vllm serve: {2 * 9} blocks of {size} bytes came from the agent, by its own numbers and by vLLM's", flush=True)

    def test_2_no_request_learns_that_the_agent_was_killed(self) -> None:
        prompts = [" ".join(f"w{10 + (number * 131 + 7 * at) % 900}" for at in range(200)) for number in range(6)]
        answers: list[str] = []
        errors: list[BaseException] = []
        ends = threading.Event()

        def traffic(first: int) -> None:
            at = first
            try:
                while not ends.is_set():
                    answers.append(self.ask(prompts[at % len(prompts)]))
                    at += 1
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=traffic, args=(first,)) for first in range(3)]
        given = serving.given(self.agent)
        for thread in threads:
            thread.start()
        try:
            # Only once blocks come from it is it killed.
            def flows() -> bool:
                self.server.ask("POST", "/reset_prefix_cache")
                return bool(errors) or serving.given(self.agent) > given
            serving.wait(flows, "blocks come from the agent")
            self.agent.kill()
            count = len(answers)
            serving.wait(lambda: bool(errors) or len(answers) >= count + 12, "requests are answered without the agent")
            # A next agent is found, and used.
            type(self).agent = AgentProcess(self.folder)

            def is_used() -> bool:
                self.server.ask("POST", "/reset_prefix_cache")
                return bool(errors) or serving.given(self.agent) > 0
            serving.wait(is_used, "blocks come from the next agent")
        finally:
            ends.set()
            for thread in threads:
                thread.join()
        self.assertEqual(errors, [])
        self.assertTrue(all(answers))
        print(f"vllm serve: {len(answers)} requests answered with 200, {len(answers) - count} since the agent was killed", flush=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
