"""Rows of figures: ours and a reference timed in turn, the median of their ratios and its 95 % interval, by order statistics.

A ratio above 1 means ours is better.
"""

from __future__ import annotations

import ctypes
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
PAIRS = 10
BLOCK = 2 << 20
BLOCKS = 48
SIZE = BLOCK * BLOCKS


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


# ---- output


def table(rows: list[Row]) -> str:
    """One line a row, and its conditions below it."""
    lines = [f"{'benchmark':<36}{'ours':>9}{'reference':>11} {'unit':<6}{'ratio':>8}{'95 % interval':>18}", "─" * 90]
    for each in rows:
        around = f"{each['low']:.3g} … {each['high']:.3g}"
        lines.append(f"{each['name']:<36}{each['ours']:>9.3g}{each['reference']:>11.3g} {each['unit']:<6}{each['ratio']:>8.3g}{around:>18}")
        lines.append(f"    against {each['referenceName']}; {each['conditions']}")
    return "\n".join(lines)
