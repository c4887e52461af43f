"""Servers of engines as their users start them: the command that README.md shows, a model of random weights, requests over HTTP.

The agent is a real one. What came from it is told by its own numbers.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import readme
import torch
from processes import AgentProcess
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from holdfast_kv.client import Client, Settings
from holdfast_kv.namespace import REQUIRED_FIELDS

LAYERS, WIDTH, INNER, HEADS, KV_HEADS, HEAD, WORDS = 2, 256, 128, 4, 2, 64, 1000


def model(folder: str) -> str:
    """A model of Llama's shape and its tokenizer: words from ``w3`` to ``w999``.

    Norms of one and small embeddings: what it answers depends on what attention reads.
    """
    path = os.path.join(folder, "model")
    os.makedirs(path)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD,
        "vocab_size": WORDS, "max_position_embeddings": 2048, "rms_norm_eps": 1e-18, "rope_theta": 10000.0,
        "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False, "hidden_act": "silu",
    }  # fmt: skip
    Path(path, "config.json").write_text(json.dumps(config))
    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{number}": number for number in range(3, WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(os.path.join(path, "tokenizer.json"))
    Path(path, "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "model_max_length": 2048,
    }))  # fmt: skip
    random = torch.Generator().manual_seed(1)

    def matrix(rows: int, columns: int, scale: float = 0.05) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=random) * scale).to(torch.bfloat16)

    weights = {"model.embed_tokens.weight": matrix(WORDS, WIDTH, 1e-3), "lm_head.weight": matrix(WORDS, WIDTH),
               "model.norm.weight": torch.ones(WIDTH, dtype=torch.bfloat16)}  # fmt: skip
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for name, rows, columns in (
            ("self_attn.q_proj", HEADS * HEAD, WIDTH), ("self_attn.k_proj", KV_HEADS * HEAD, WIDTH),
            ("self_attn.v_proj", KV_HEADS * HEAD, WIDTH), ("self_attn.o_proj", WIDTH, HEADS * HEAD),
            ("mlp.gate_proj", INNER, WIDTH), ("mlp.up_proj", INNER, WIDTH), ("mlp.down_proj", WIDTH, INNER),
        ):  # fmt: skip
            weights[f"{at}{name}.weight"] = matrix(rows, columns)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{at}{name}.weight"] = torch.ones(WIDTH, dtype=torch.bfloat16)
    save_file(weights, os.path.join(path, "model.safetensors"), metadata={"format": "pt"})
    return path


def command(first: str, agent: str, change: Callable[[dict[str, Any]], None] | None = None) -> list[str]:
    """The command of README.md whose first line begins so, with an agent's socket in place of the one that stands there.

    ``change`` has the JSON of its flag in hand before it is passed on.
    """
    words = shlex.split(readme.block(first).replace("\\\n", " "))
    at = next(index for index, word in enumerate(words) if word.startswith("{"))
    configuration = json.loads(words[at].replace("/run/holdfast/agent.sock", agent))
    if change is not None:
        change(configuration)
    words[at] = json.dumps(configuration)
    return words


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def numbers(agent: AgentProcess) -> dict[str, int]:
    """What the agent says of itself."""
    fields = dict.fromkeys(REQUIRED_FIELDS, "") | {"block_tokens": "1"}
    with Client(agent.socket, kind="visitor", store_namespace="test", fields=fields, block_bytes=1, checks=False,
                settings=Settings(load_deadline=60.0)) as visitor:  # fmt: skip
        assert visitor.wait_open(60), "the agent is not there"
        return dict(visitor.statistics().result())


def kept(agent: AgentProcess) -> int:
    """Bytes that came from engines."""
    seen = numbers(agent)
    return seen.get("handover_bytes_adopted_total", 0) + seen.get("bytes_out_of_engine_total", 0)


def given(agent: AgentProcess) -> int:
    """Bytes that engines got back."""
    seen = numbers(agent)
    return seen.get("handover_bytes_lent_total", 0) + seen.get("bytes_into_engine_total", 0)


def wait(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    """Waits until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)


class ServingTest(unittest.TestCase):
    """An agent in a folder of its own, for a server that a test starts beside it."""

    folder: str
    agent: AgentProcess

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.agent = AgentProcess(cls.folder)
        cls.addClassCleanup(lambda: cls.agent.kill())


class Server:
    """An engine's server, its processes ended with it."""

    def __init__(self, folder: str, words: list[str], port: int, *, health: str, more: Mapping[str, str]) -> None:
        self.port = port
        self.log = os.path.join(folder, "server.log")
        paths = [str(Path(__file__).parents[2]), more.get("PYTHONPATH", ""), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, **more, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True, cwd=folder
            )
        wait(lambda: self._is_well(health), f"{words[0]} serves", 400.0)

    def _is_well(self, health: str) -> bool:
        assert self.process.poll() is None, f"the server has ended: {self.said()}"
        with contextlib.suppress(OSError):
            return self.ask("GET", health)[0] == 200
        return False

    def said(self) -> str:
        """The end of its log."""
        return Path(self.log).read_text(errors="replace")[-6000:]

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """A request over HTTP, and its answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data=data, method=method, headers={"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def stop(self) -> None:
        """Ends it and what it started."""
        for what in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, what)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
