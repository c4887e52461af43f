"""What a request that misses waits for the connector: counted call by call, since it is far below what two runs differ by.

vLLM's own engine prefills prompts of 2,048 tokens that nobody has, with the connector and, in turn, with the connector looking
away. Counted of a request are

- the time inside every call of the connector, scheduler's half and worker's half, on the engine's own thread: look-up, plan,
  the copies that save its blocks;
- the time from the first question for its match to the answer, whatever the engine does meanwhile;
- all processor time of the client's threads until its blocks are saved, as if it had stopped the engine: they share the
  interpreter.

Not counted are vLLM's own calls around a connector, which any connector has, and what the agent takes of the machine: cores,
memory, caches. The times of whole requests, which have all of it, are told beside the rows; here they differ by more than the
bound. Copies run on the engine's thread as there is no GPU; with one they run in its stream.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import vllm_cpu_engine as test
from speed_rows import Row, interval, row, timed
from vllm import SamplingParams, TokensPrompt

from holdfast_kv.vllm.connector import HoldfastConnector

TOKENS = 2048
REQUESTS = 20
BOUND = 0.02

_SCHEDULER = (
    "on_new_request", "update_state_after_alloc", "build_connector_meta", "request_finished", "request_finished_all_groups",
    "take_events",
)  # fmt: skip
_WORKER = ("start_load_kv", "wait_for_layer_load", "save_kv_layer", "wait_for_save", "get_transfer_results")


class Meter:
    """Time inside the connector's calls, and of its client's threads. Calls within calls count once."""

    def __init__(self, clients: list[Any]) -> None:
        self.scheduler = self.worker = 0.0
        self._clocks = [time.pthread_getcpuclockid(client._thread.ident) for client in clients]
        self._is_inside = False
        self._asked: dict[str, float] = {}
        for name in _SCHEDULER:
            self._wrap(name, "scheduler")
        for name in _WORKER:
            self._wrap(name, "worker")
        self._wrap_match()

    @property
    def threads(self) -> float:
        """Processor time of the client's threads so far."""
        return sum(map(time.clock_gettime, self._clocks))

    def _wrap(self, name: str, half: str) -> None:
        call = getattr(HoldfastConnector, name)

        def metered(connector: HoldfastConnector, *arguments: Any, **more: Any) -> Any:
            if self._is_inside:
                return call(connector, *arguments, **more)
            self._is_inside = True
            begun = time.perf_counter()
            try:
                return call(connector, *arguments, **more)
            finally:
                setattr(self, half, getattr(self, half) + time.perf_counter() - begun)
                self._is_inside = False

        setattr(HoldfastConnector, name, metered)

    def _wrap_match(self) -> None:
        match = HoldfastConnector.get_num_new_matched_tokens

        def metered(connector: HoldfastConnector, request: Any, computed: int) -> tuple[int | None, bool]:
            begun = self._asked.setdefault(request.request_id, time.perf_counter())
            found = match(connector, request, computed)
            if found[0] is not None:
                self.scheduler += time.perf_counter() - begun
                del self._asked[request.request_id]
            return found

        HoldfastConnector.get_num_new_matched_tokens = metered  # type: ignore[method-assign]


def rows() -> list[Row]:
    """The rows."""
    # As many operations for each byte of KV as Llama's model of eight billion weights has, 120,000; one layer of it.
    test.MODEL |= {
        "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 4,
        "num_hidden_layers": 1, "max_position_embeddings": 4096,
    }  # fmt: skip
    case = test.EngineTest
    case.max_model_len, case.cache_blocks, case.has_events = TOKENS + 64, 3 * TOKENS // 32, False
    case.setUpClass()
    scheduler = case.engine.llm_engine.engine_core.engine_core.scheduler.connector.scheduler
    clients = [scheduler.client, case.worker.client]
    meter = Meter(clients)
    sampling = SamplingParams(max_tokens=1, ignore_eos=True, temperature=0, detokenize=False)
    figures: dict[str, list[float]] = {name: [] for name in ("with", "without", "scheduler", "worker", "threads")}

    def prefill(number: int, is_used: bool) -> None:
        prompt = TokensPrompt(prompt_token_ids=[10 + (number * 131 + at * (7 + number % 50)) % 900 for at in range(TOKENS)])
        before = meter.scheduler, meter.worker, meter.threads
        saved = case.worker.counts["saved"]
        scheduler.client.is_open = is_used
        try:
            seconds = timed(lambda: case.engine.generate([prompt], sampling, use_tqdm=False))
        finally:
            scheduler.client.is_open = True
        if is_used:
            settled(saved + TOKENS // 32)
            after = meter.scheduler, meter.worker, meter.threads
            for name, begun, ended in zip(("scheduler", "worker", "threads"), before, after, strict=True):
                figures[name].append(ended - begun)
        figures["with" if is_used else "without"].append(seconds)

    def settled(count: int) -> None:
        deadline = time.monotonic() + 60
        while case.worker.counts["saved"] < count:
            assert time.monotonic() < deadline, f"{case.worker.counts}: blocks are not saved"
            case.worker.finished()
            time.sleep(0.001)

    for turn in range(-2, 2 * REQUESTS):
        # The order within a pair alternates; the pair before the first is not counted.
        prefill(turn + 2, bool(turn % 2) != bool(turn // 2 % 2))
    figures = {name: values[1:] for name, values in figures.items()}
    return [*miss_rows(figures), look_up_row(scheduler)]


def miss_rows(figures: dict[str, list[float]]) -> list[Row]:
    """Added times beside 2 % of the prefill that they were added to."""
    counted = [sum(each) for each in zip(figures["scheduler"], figures["worker"], figures["threads"], strict=True)]
    bound = [seconds * BOUND for seconds in figures["without"]]
    halves = {name: statistics.median(figures[name]) * 1e3 for name in ("scheduler", "worker", "threads", "without")}
    whole = sorted(ours / theirs for ours, theirs in zip(figures["with"], figures["without"], strict=True))
    low, high = interval(whole)
    what = (
        f"{TOKENS} new tokens, one layer of dummy weights, prefill {halves['without']:.0f} ms; whole requests with the connector "
        f"take {statistics.median(whole):.3f} ({low:.3f} … {high:.3f}) of those without"
    )
    parts = f"{halves['scheduler']:.2f} ms scheduler, {halves['worker']:.2f} worker, {halves['threads']:.2f} client's threads"
    reference = "2 % of its prefill"
    return [
        row("engines vllm miss", "ms", counted, bound, reference, f"all that is counted: {parts}; {what}", 1e3),
        row("engines vllm miss, scheduler", "ms", figures["scheduler"], bound, reference,
            f"the scheduler's half and its wait for the answer: within 2 % of any prefill of {50 * halves['scheduler']:.0f} ms or more", 1e3),
    ]  # fmt: skip


def look_up_row(scheduler: Any, rounds: int = 40) -> Row:
    """What the scheduler's thread spends on a prompt of 1,000 blocks."""
    ours: list[float] = []
    theirs: list[float] = []

    def spent(work: Callable[[], object]) -> float:
        begun = time.thread_time()
        work()
        return time.thread_time() - begun

    for number in range(-1, rounds):
        hashes = tuple(hashlib.sha256(f"{os.getpid()}/{number}/{at}".encode()).digest() for at in range(1000))
        request = SimpleNamespace(
            request_id=f"speed {number}", block_hashes=hashes, num_tokens=32 * 1000 + 1, kv_transfer_params=None,
            all_token_ids=(),
        )  # fmt: skip
        seconds = spent(lambda request=request: scheduler.begin(request))
        found = (None, False)
        while found[0] is None:
            begun = time.thread_time()
            found = scheduler.match(request, 0)
            seconds += time.thread_time() - begun
        ours.append(seconds + spent(lambda request=request: scheduler.end(request)))
        known = dict.fromkeys(hashes)
        theirs.append(spent(lambda known=known, hashes=hashes: [known.get(each) for each in hashes]))
    what = "processor time of the scheduler's thread for a prompt of 1,000 new blocks, from its arrival to its end"
    return row("engines vllm connector look-up", "µs", ours[1:], theirs[1:], "a dictionary asked 1,000 times", what, 1e6)
