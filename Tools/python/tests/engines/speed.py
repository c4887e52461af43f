"""What the connectors cost and how fast they move, beside memcpy and beside what each engine brings itself.

    speed.py vllm|vllm-cpu|sglang|lmcache --out ROWS.json     measures, against the agent at HOLDFAST_SOCKET
    speed.py table ROWS.json …                                prints them
    speed.py json ROWS.json …                                 prints them as one JSON array

Rows are those of ``Tools/bench``: ours and a reference, timed in turn, the side that goes first alternating; a ratio above 1
means ours is better; the interval is that of the ratio's median, by order statistics. The engines' own tiers write to a
file system in memory, the fastest they can have.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from speed_rows import BLOCK, BLOCKS, PAIRS, SIZE, Row, moves, pairs, row, table, timed

#: What the rows of an engine may take, its start included.
SECONDS_MAX = 240
#: Where the engines' own tiers keep their files.
SCRATCH = "/dev/shm"


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


def misses() -> list[Row]:
    """Its own page."""
    import speed_miss

    return speed_miss.rows()


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
    layout = test.MemoryLayoutDesc(case.metadata.get_shapes(), case.metadata.get_dtypes())
    # The server's own L1 memory, shared as it is with --no-l1-use-lazy.
    l1 = test.L1MemoryManager(test.L1MemoryManagerConfig(size_in_bytes=SIZE + (64 << 20), use_lazy=False))
    _, shared = l1.allocate(layout, BLOCKS)
    for thing in shared:
        memoryview(thing.byte_array).cast("B")[:] = b"\1" * BLOCK

    def side(adapter: Any, objects: list[Any], text: str) -> tuple[Callable[[int], float], Callable[[int], float]]:
        def wait(event: int) -> None:
            assert select.select([event], [], [], 60)[0]
            os.eventfd_read(event)

        def names(number: int) -> list[Any]:
            return [test.ObjectKey(f"{text}{os.getpid()}s{number}-{n}".encode().ljust(32, b"."), "m/m", 0x01000100) for n in range(BLOCKS)]

        def store(number: int) -> float:
            begun = time.perf_counter()
            task = adapter.submit_store_task(names(number), objects)
            wait(adapter.get_store_event_fd())
            seconds = time.perf_counter() - begun
            assert adapter.pop_completed_store_tasks()[task].is_successful()
            return seconds

        def load(number: int) -> float:
            begun = time.perf_counter()
            task = adapter.submit_load_task(names(number), objects)
            wait(adapter.get_load_event_fd())
            seconds = time.perf_counter() - begun
            bits = adapter.query_load_result(task)
            assert all(bits.test(at) for at in range(BLOCKS))
            return seconds

        return store, load

    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        files = create_l2_adapter(FSL2AdapterConfig(base_path=folder))
        for name, objects, desc, how in (
            ("in place", shared, l1.get_l1_memory_desc(), "the agent maps the server's L1 memory"),
            ("one copy", things, None, "between LMCache's buffers and the agent's arena"),
        ):
            ours = test.HoldfastL2({"socket": case.socket, "staging_bytes": 2 * SIZE, "chunk_tokens": 256}, desc)
            ours.submit_lookup_and_lock_task([], {0: layout})
            link = ours._link
            assert link is not None and link.client.wait_open(30)
            assert desc is not None or link.client.arena.has_pages.wait(60)
            sides = side(ours, objects, name), side(files, objects, name)
            rows += moves(f"lmcache l2, {name}", "LMCache's fs adapter on tmpfs", *sides, how, folder)
            assert (link.written_in_place > 0) == (desc is None)
            ours.close()
        files.close()
    l1.close()
    case.doCleanups()
    assert torch is not None
    return rows


def main() -> None:
    """Measures, or prints what was measured."""
    what = sys.argv[1]
    if what in ("table", "json"):
        rows = [each for path in sys.argv[2:] for each in json.loads(Path(path).read_text())]
        print(table(rows) if what == "table" else json.dumps(rows, indent=2, sort_keys=True, ensure_ascii=False))
        return
    # Whoever measures is told where it stands still, instead of waiting.
    faulthandler.dump_traceback_later(SECONDS_MAX, exit=True)
    rows = {"vllm": vllm, "vllm-cpu": misses, "sglang": sglang, "lmcache": lmcache}[what]()
    Path(sys.argv[sys.argv.index("--out") + 1]).write_text(json.dumps(rows))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
