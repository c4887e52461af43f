"""What the connectors cost and how fast they move, beside memcpy and beside what each engine brings itself.

    speed.py vllm|vllm-cpu|sglang|lmcache --out ROWS.json     measures, against the agent at HOLDFAST_SOCKET
    speed.py table ROWS.json …                                prints them
    speed.py json ROWS.json …                                 prints them as one JSON array

Rows are those of ``Tools/bench``: ours and a reference, timed in turn, the side that goes first alternating; a ratio above 1
means ours is better; the interval is that of the ratio's median, by order statistics. The engines' own tiers write to a
file system in memory, the fastest they can have.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import math
import os
import select
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

Row = dict[str, Any]
PAIRS = 10
BLOCK = 2 << 20
BLOCKS = 48
SIZE = BLOCK * BLOCKS
#: What the rows of an engine may take, its start included.
SECONDS_MAX = 240
#: Where the engines' own tiers keep their files.
SCRATCH = "/dev/shm"


# ---- pairs


def pairs(ours: Callable[[int], float], reference: Callable[[int], float], count: int = PAIRS) -> tuple[list[float], list[float]]:
    """Figures of both sides, in turn; the pair before the first is not counted."""
    mine: list[float] = []
    theirs: list[float] = []
    for pair in range(-1, count):
        sides = [(mine, ours), (theirs, reference)]
        for figures, side in sides if pair % 2 == 0 else reversed(sides):
            figures.append(side(pair))
    return mine[1:], theirs[1:]


def row(name: str, unit: str, ours: list[float], theirs: list[float], reference: str, conditions: str, scale: float = 1.0) -> Row:
    """A row of figures of which less is better; ``scale`` makes them the unit's, throughputs are bytes by figure."""
    ratios = sorted(their / mine for mine, their in zip(ours, theirs, strict=True))
    low, high = interval(ratios)
    shown = [statistics.median(SIZE / 1e9 / figure if unit == "GB/s" else figure * scale for figure in side) for side in (ours, theirs)]
    print(f"  {name}: {shown[0]:.3g} {unit}, {reference}: {shown[1]:.3g}", file=sys.stderr, flush=True)
    return {
        "name": name, "unit": unit, "ours": shown[0], "reference": shown[1], "referenceName": reference,
        "ratio": statistics.median(ratios), "low": low, "high": high,
        "conditions": f"{conditions}; {len(ours)} interleaved pairs",
    }  # fmt: skip


def interval(sorted_values: list[float]) -> tuple[float, float]:
    """The 95 % interval of a median: the widest ranks with at most 2.5 % on each side."""
    count = len(sorted_values)
    cut, below = 0, 0.0
    while cut < count // 2 and (below := below + math.comb(count, cut) / 2**count) <= 0.025:
        cut += 1
    cut = max(0, cut - 1)
    return sorted_values[cut], sorted_values[count - 1 - cut]


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


class Copy:
    """A copy of as many bytes, between memory whose pages are there."""

    def __init__(self) -> None:
        self.source, self.target = bytearray(b"\1") * SIZE, bytearray(b"\2") * SIZE
        self.addresses = [ctypes.addressof(ctypes.c_char.from_buffer(each)) for each in (self.target, self.source)]

    def __call__(self, _: int = 0) -> float:
        return timed(lambda: ctypes.memmove(*self.addresses, SIZE))


def moves(engine: str, own: str, ours: tuple[Any, Any], theirs: tuple[Any, Any], how: str, scratch: str) -> list[Row]:
    """The rows of a connector's stores and loads; each side is (store, load), functions of a turn's number.

    A turn stores and loads on both sides and copies, one after the other; what the other side wrote to files is removed behind
    it, so that every turn gets pages that the machine had given out before.
    """
    memory_is_there()
    copy = Copy()
    figures: list[tuple[list[float], ...]] = [([], [], []), ([], [], [])]
    for turn in range(-1, PAIRS):
        for verb in (0, 1):
            sides = list(zip(figures[verb], (ours[verb], theirs[verb], copy), strict=True))
            for seconds, side in sides if turn % 2 == 0 else reversed(sides):
                seconds.append(side(turn))
        for path in Path(scratch).rglob("*"):
            if path.is_file():
                path.unlink()
    rows = []
    for name, (mine, their, copied) in zip(("store", "load"), figures, strict=True):
        conditions = f"{BLOCKS} blocks of 2 MiB at once, {how}"
        rows.append(row(f"engines {engine} {name}", "GB/s", mine[1:], their[1:], own, conditions))
        rows.append(row(f"engines {engine} {name} / memcpy", "GB/s", mine[1:], copied[1:], "memcpy, one thread", conditions))
    return rows


def memory_is_there(seconds: float = 150.0) -> None:
    """Waits until the agent has all pages of its node memory: before, a save waits for the machine to hand them out."""
    deadline = time.monotonic() + seconds
    while "node memory is ready" not in Path(os.environ["HOLDFAST_AGENT_LOG"]).read_text():
        assert time.monotonic() < deadline, "the agent's memory does not come"
        time.sleep(0.1)


# ---- vLLM's tier


def vllm() -> list[Row]:
    """Our tier beside vLLM's ``fs`` tier, under vLLM's own manager's interface."""
    import numpy as np
    import vllm_tier
    from vllm.v1.kv_offload.base import LookupResult, ReqContext, ScheduleEndContext
    from vllm.v1.kv_offload.factory import OffloadingSpecFactory
    from vllm.v1.kv_offload.tiering.base import TransferJob

    vllm_tier.ROW, vllm_tier.ROWS = BLOCK, BLOCKS
    numbers = iter(range(1, 1 << 30))

    def manager(**tier: object) -> Any:
        made = vllm_tier.config(os.environ["HOLDFAST_SOCKET"], f"speed{os.getpid()}-{next(numbers)}")
        if tier:
            made.extra_config["secondary_tiers"] = [tier]
        return OffloadingSpecFactory.create_spec(made).get_manager()

    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        managers = [manager(), manager(type="fs", root_dir=folder)]
        tiers = [each.secondary_tiers[0] for each in managers]
        assert tiers[0]._client.wait_open(30)
        for number, each in enumerate(managers):
            np.asarray(each.primary_tier.get_kv_memoryview())[:] = number + 1
        contexts = ReqContext("speed")
        for tier in tiers:
            tier.on_new_request(contexts)
        rows_of = np.arange(BLOCKS, dtype=np.int32)

        def run(tier: Any, verb: str, number: int) -> float:
            names = vllm_tier.keys(f"speed{number}-", BLOCKS)
            context = ReqContext(f"{verb}{number}")
            # The manager's own thread takes ends of jobs, too; with its lock held they are seen here.
            with managers[tiers.index(tier)].lock:
                return move(tier, verb, names, context)

        def move(tier: Any, verb: str, names: list[bytes], context: Any) -> float:
            tier.on_new_request(context)
            job = TransferJob(next(numbers), names, rows_of, verb == "load", context)
            begun = time.perf_counter()
            (tier.submit_load if verb == "load" else tier.submit_store)(job)
            while not (ended := list(tier.get_finished_jobs())):
                assert time.perf_counter() < begun + 60, f"{verb} by {type(tier).__name__} does not end"
                time.sleep(0.00005)
            seconds = time.perf_counter() - begun
            assert ended[0].success, f"{verb} by {type(tier).__name__}: {ended}"
            tier.on_request_finished(context)
            return seconds

        sides = [[lambda number, tier=tier, verb=verb: run(tier, verb, number) for verb in ("store", "load")] for tier in tiers]
        rows = moves("vllm tier", "vLLM's fs tier on tmpfs", tuple(sides[0]), tuple(sides[1]), "the agent maps vLLM's CPU region", folder)

        def look_up(side: int, number: int, known: list[float]) -> float:
            with managers[side].lock:
                return asked(tiers[side], number, known)

        def asked(tier: Any, number: int, known: list[float]) -> float:
            names = vllm_tier.keys(f"look{number}-", 1000)
            context = ReqContext(f"look{number}")
            begun = time.thread_time()
            tier.on_new_request(context)
            for name in names:
                tier.lookup(name, context)
            tier.on_schedule_end(ScheduleEndContext((), ()))
            first = time.thread_time() - begun
            deadline = time.monotonic() + 60
            while tier.lookup(names[-1], context) == LookupResult.RETRY:
                assert time.monotonic() < deadline, f"{type(tier).__name__} does not answer"
                time.sleep(0.0005)
                tier.on_schedule_end(ScheduleEndContext((), ()))
            begun = time.thread_time()
            for name in names:
                tier.lookup(name, context)
            known.append(time.thread_time() - begun)
            tier.on_request_finished(context)
            return first

        known: tuple[list[float], list[float]] = ([], [])
        first = pairs(lambda n: look_up(0, n, known[0]), lambda n: look_up(1, n, known[1]), 2 * PAIRS)
        what = "processor time of the scheduler's thread for 1,000 keys asked one by one"
        rows.append(row("engines vllm look-up, new", "µs", *first, "vLLM's fs tier", f"{what} and the step's end", 1e6))
        rows.append(row("engines vllm look-up, known", "µs", known[0][1:], known[1][1:], "vLLM's fs tier", what, 1e6))
        for each in managers:
            each.shutdown()
    return rows


# ---- a request that misses, on vLLM's own engine


def vllm_cpu() -> list[Row]:
    """Time to the first token of prompts that nobody has, with the connector and with it looking away."""
    import vllm_cpu_engine as test
    from vllm import SamplingParams, TokensPrompt

    test.EngineTest.setUpClass()
    engine = test.EngineTest.engine
    core = engine.llm_engine.engine_core.engine_core
    client = core.scheduler.connector.scheduler.client
    assert client.wait_open(30)
    sampling = SamplingParams(max_tokens=1, ignore_eos=True, temperature=0, detokenize=False)
    numbers = iter(range(1, 1 << 30))

    def prefill(is_used: bool) -> float:
        number = next(numbers)
        prompt = TokensPrompt(prompt_token_ids=[10 + (number * 131 + at * (7 + number % 50)) % 900 for at in range(480)])
        test.EngineTest.worker.client.drain(10)
        client.is_open = is_used
        try:
            return timed(lambda: engine.generate([prompt], sampling, use_tqdm=False))
        finally:
            client.is_open = True

    ours, theirs = pairs(lambda _: prefill(True), lambda _: prefill(False) * 1.02, 30)
    conditions = "480 new tokens, dummy weights of two layers: look-up, miss, and the copies that save its blocks; the bound is 2 %"
    return [row("engines vllm request that misses", "ms", ours, theirs, "the same engine without the cache, and 2 % more", conditions, 1e3)]


# ---- SGLang


def sglang() -> list[Row]:
    """Our HiCache backend beside SGLang's own file backend."""
    import sglang_hicache as test
    import torch
    from sglang.srt.mem_cache.hicache_storage import HiCacheFile, HiCacheStorageConfig, HiCacheStorageExtraInfo

    page = test.PAGE
    heads = BLOCK // (2 * page * 16 * 16 * 2)
    test.SIZE = BLOCKS * page
    case = test.HiCacheTest("test_ranks_do_not_meet")
    case.setUp()
    pool = test.pool_of(layers=16, heads=heads)
    pool.kv_buffer.view(torch.int16).fill_(1)
    backend = case.backend(pool)
    assert backend._mover.client.wait_open(30)
    chain = HiCacheStorageExtraInfo(prefix_keys=[])
    indices = torch.arange(0, BLOCKS * page)

    def ours(verb: str) -> Callable[[int], float]:
        def run(number: int) -> float:
            names = test.keys_of(f"speed{number}", BLOCKS)
            call = backend.batch_set_v1 if verb == "store" else backend.batch_get_v1
            done: list[bool] = []
            seconds = timed(lambda: done.extend(call(names, indices, chain)))
            assert all(done), f"{verb}: {sum(done)} of {len(done)}"
            return seconds

        return run

    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        config = HiCacheStorageConfig(
            tp_rank=0, tp_size=1, pp_rank=0, pp_size=1, attn_cp_rank=0, attn_cp_size=1, is_mla_model=False,
            enable_storage_metrics=False, is_page_first_layout=True, model_name="m", extra_config={"file_storage_path": folder},
        )  # fmt: skip
        files = HiCacheFile(config)
        pages = list(torch.full((BLOCKS, BLOCK), 1, dtype=torch.uint8))

        def theirs(verb: str) -> Callable[[int], float]:
            def run(number: int) -> float:
                names = test.keys_of(f"speed{number}", BLOCKS)
                done: list[object] = []
                if verb == "store":
                    seconds = timed(lambda: done.append(files.batch_set(names, pages)))
                else:
                    seconds = timed(lambda: done.extend(files.batch_get(names, pages)))
                assert all(each is not None and each is not False for each in done), verb
                return seconds

            return run

        rows = moves("sglang", "SGLang's file backend on tmpfs", (ours("store"), ours("load")), (theirs("store"), theirs("load")),
                     "pages of a memfd pool, in place", folder)  # fmt: skip
    case.doCleanups()
    return rows


# ---- LMCache


def lmcache() -> list[Row]:
    """Our L2 adapter beside LMCache's file system adapter, staged and in place."""
    import lmcache_storage as test
    import torch
    from lmcache.v1.distributed.l2_adapters import create_l2_adapter
    from lmcache.v1.distributed.l2_adapters.fs_l2_adapter import FSL2AdapterConfig

    test.CHUNK, test.SHAPE = 256, (BLOCK // (2 * 256 * 8 * 64 * 2), 2, 256, 8, 64)

    class Case(test.Agents):  # type: ignore[misc]
        def runTest(self) -> None: ...  # noqa: N802

    case = Case()
    case.setUp()
    case.config.max_local_cpu_size = 0.5
    case.cpu = test.LocalCPUBackend(case.config, case.metadata, dst_device="cpu")
    things = [case.buffer(number + 1) for number in range(BLOCKS)]
    assert things[0].get_size() == BLOCK, things[0].get_size()
    ours = test.HoldfastL2({"socket": case.socket, "staging_bytes": 2 * SIZE, "chunk_tokens": 256})

    def side(adapter: Any) -> tuple[Callable[[int], float], Callable[[int], float]]:
        def wait(event: int) -> None:
            assert select.select([event], [], [], 60)[0]
            os.eventfd_read(event)

        def names(number: int) -> list[Any]:
            return [test.ObjectKey(f"{os.getpid()}s{number}-{n}".encode().ljust(32, b"."), "m/m", 0x01000100) for n in range(BLOCKS)]

        def store(number: int) -> float:
            begun = time.perf_counter()
            task = adapter.submit_store_task(names(number), things)
            wait(adapter.get_store_event_fd())
            seconds = time.perf_counter() - begun
            assert adapter.pop_completed_store_tasks()[task].is_successful()
            return seconds

        def load(number: int) -> float:
            begun = time.perf_counter()
            task = adapter.submit_load_task(names(number), things)
            wait(adapter.get_load_event_fd())
            seconds = time.perf_counter() - begun
            bits = adapter.query_load_result(task)
            assert all(bits.test(at) for at in range(BLOCKS))
            return seconds

        return store, load

    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        files = create_l2_adapter(FSL2AdapterConfig(base_path=folder))
        first = side(ours)
        ours.submit_lookup_and_lock_task([], {0: test.MemoryLayoutDesc(case.metadata.get_shapes(), case.metadata.get_dtypes())})
        assert ours._link is not None and ours._link.client.wait_open(30)
        assert ours._link.client.arena.has_pages.wait(60)
        rows = moves("lmcache l2", "LMCache's fs adapter on tmpfs", first, side(files), "one copy, between LMCache's buffers and the agent's arena", folder)
        files.close()
    ours.close()
    case.doCleanups()
    assert torch is not None
    return rows


# ---- output


def table(rows: list[Row]) -> str:
    """One line a row, and its conditions below it."""
    lines = [f"{'benchmark':<36}{'ours':>9}{'reference':>11} {'unit':<6}{'ratio':>8}{'95 % interval':>18}", "─" * 90]
    for each in rows:
        around = f"{each['low']:.3g} … {each['high']:.3g}"
        lines.append(f"{each['name']:<36}{each['ours']:>9.3g}{each['reference']:>11.3g} {each['unit']:<6}{each['ratio']:>8.3g}{around:>18}")
        lines.append(f"    against {each['referenceName']}; {each['conditions']}")
    return "\n".join(lines)


def main() -> None:
    """Measures, or prints what was measured."""
    what = sys.argv[1]
    if what in ("table", "json"):
        rows = [each for path in sys.argv[2:] for each in json.loads(Path(path).read_text())]
        print(table(rows) if what == "table" else json.dumps(rows, indent=2, sort_keys=True, ensure_ascii=False))
        return
    # Whoever measures is told where it stands still, instead of waiting.
    faulthandler.dump_traceback_later(SECONDS_MAX, exit=True)
    rows = {"vllm": vllm, "vllm-cpu": vllm_cpu, "sglang": sglang, "lmcache": lmcache}[what]()
    Path(sys.argv[sys.argv.index("--out") + 1]).write_text(json.dumps(rows))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
