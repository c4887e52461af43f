"""What any agent must do for a client, checked over a socket: ``conformance.py SOCKET``.

The agent must keep what it is offered (a test's agent does; a real one does while there is room). Ends with code 0 and one line per
rule, or with what failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from holdfast_kv import protocol as p
from holdfast_kv.client import AsyncClient, Client, Settings
from holdfast_kv.namespace import REQUIRED_FIELDS, namespace_digest
from holdfast_kv.regions import SharedMemory, StagingRegion

BLOCK = 4096
FIELDS = dict.fromkeys(REQUIRED_FIELDS, "1") | {"block_tokens": "16", "model": "test"}


def keys_of(text: str, count: int) -> list[bytes]:
    """Keys of a chain."""
    return [hashlib.sha256(f"{text}/{index}".encode()).digest() for index in range(count)]


def client_of(path: str) -> Client:
    """A client with patience."""
    settings = Settings(lookup_deadline=30.0, load_deadline=30.0, save_deadline=30.0)
    client = Client(path, kind="replay", store_namespace="default", fields=FIELDS, block_bytes=BLOCK, settings=settings)
    assert client.wait_open(30.0), f"not welcome: {client.refusal}"
    return client


def fill(memory: SharedMemory, row: int, seed: bytes) -> None:
    """Fills a block with bytes that follow from its key."""
    memory.view[row * BLOCK : (row + 1) * BLOCK] = (seed * (BLOCK // len(seed) + 1))[:BLOCK]


def saves_come_back(path: str) -> None:
    """What one engine saves, it and another load, byte for byte."""
    keys = keys_of("comes back", 40)
    with SharedMemory(BLOCK * 64) as memory, client_of(path) as one:
        region = one.add_region(memory.fd, memory.length)
        assert one.region_added(region).result(30)
        for row, key in enumerate(keys):
            fill(memory, row, key)
        ticket, found = one.lookup(keys, prompt_tokens=40 * 16 + 3, session=7, turn=0)
        assert found.result(30).hit_blocks == 0
        saved = one.save(keys, 0, p.Places.rows(region, range(40), BLOCK), request=ticket).result(30)
        assert saved.count == 40 and all(saved.is_kept(index) for index in range(40)), saved
        assert saved.size == 40 * BLOCK
        one.finished(ticket, reason=p.StopReason.END_TURN, cached_tokens=0, time_to_first_token=0.5)
        with SharedMemory(BLOCK * 64) as other_memory, client_of(path) as other:
            number = other.add_region(other_memory.fd, other_memory.length)
            ticket, found = other.lookup(keys, prompt_tokens=40 * 16)
            assert found.result(30).hit_blocks == 40, found.result(30)
            rows = [63 - index for index in range(36)]
            loaded = other.load(None, 4, p.Places.rows(number, rows, BLOCK), request=ticket).result(30)
            assert (loaded.first, loaded.end, loaded.size) == (4, 40, 36 * BLOCK), loaded
            for index, row in enumerate(rows):
                there = bytes(other_memory.view[row * BLOCK : (row + 1) * BLOCK])
                assert there[:32] == keys[4 + index] and there == (there[:32] * 128), f"block {4 + index}"
            other.finished(ticket)
            assert other.drop_region(number).exception(10) is None


def segments_keep_their_order(path: str) -> None:
    """Blocks in several parts are put together in the order of their slices."""
    keys = keys_of("segments", 3)
    with SharedMemory(BLOCK * 8) as memory, client_of(path) as client:
        region = client.add_region(memory.fd, memory.length)
        for row, key in enumerate(keys):
            fill(memory, row, key)
        half = BLOCK // 2
        # The halves of each block are given in turn, the second one first.
        swapped = [(region, row * BLOCK + part, half) for row in range(3) for part in (half, 0)]
        ticket, _ = client.lookup(keys, prompt_tokens=48)
        assert client.save(keys, 0, p.Places.of(swapped, 2), request=ticket).result(30).kept == 0b111
        into = p.Places.rows(region, [5, 6, 7], BLOCK)
        assert client.load(keys, 0, into).result(30).end == 3
        for row in range(3):
            block = bytes(memory.view[row * BLOCK : (row + 1) * BLOCK])
            assert bytes(memory.view[(row + 5) * BLOCK : (row + 6) * BLOCK]) == block[half:] + block[:half]


def a_long_chain_is_one_message(path: str) -> None:
    """Sixteen thousand keys travel in one frame; so do 1,024 blocks."""
    keys = keys_of("long", p.KEYS_MAX)
    with SharedMemory(BLOCK * 1024) as memory, client_of(path) as client:
        region = client.add_region(memory.fd, memory.length)
        ticket, found = client.lookup(keys, prompt_tokens=16 * len(keys))
        assert found.result(30).hit_blocks == 0
        client.finished(ticket)
        saved = client.save(keys[:1024], 0, p.Places.rows(region, range(1024), BLOCK)).result(30)
        assert saved.count == 1024


def groups_and_shards_do_not_meet(path: str) -> None:
    """A key names another object in another group or shard."""
    keys = tuple(keys_of("shards", 2))
    with client_of(path) as client:
        staging = StagingRegion(BLOCK, 4)
        staging.region = client.add_region(staging.memory.fd, staging.memory.length)
        slots = staging.acquire(2)
        assert slots is not None
        one = p.Chain(keys, group=1, shard=0, shards=2)
        ticket, _ = client.lookup(one, prompt_tokens=32)
        assert client.save(one, 0, staging.places(slots), request=ticket).result(30).kept == 3
        client.finished(ticket)
        for chain, hits in ((one, 2), (p.Chain(keys, 1, 1, 2), 0), (p.Chain(keys, 0, 0, 2), 0)):
            ticket, found = client.lookup(chain, prompt_tokens=32)
            assert found.result(30).hit_blocks == hits, chain
            client.finished(ticket)
        staging.release(slots)


def who_loads_need_not_be_who_asked(path: str) -> None:
    """A process loads for a request that another one looked up, in pieces, and for one that nobody knows any more."""
    keys = keys_of("another's", 8)
    with SharedMemory(BLOCK * 16) as memory, client_of(path) as scheduler, client_of(path) as worker:
        region = worker.add_region(memory.fd, memory.length)
        for row, key in enumerate(keys):
            fill(memory, row, key)
        ticket, found = scheduler.lookup(keys, prompt_tokens=8 * 16 + 1)
        asker = scheduler.number
        assert found.result(30).hit_blocks == 0 and asker > 0
        saved = worker.save(keys, 0, p.Places.rows(region, range(8), BLOCK), request=ticket, asker=asker)
        assert saved.result(30).kept == 0xFF
        scheduler.finished(ticket)
        ticket, found = scheduler.lookup(keys, prompt_tokens=8 * 16 + 1)
        assert found.result(30).hit_blocks == 8
        for first in (0, 4, 4):
            rows = p.Places.rows(region, range(8 + first, 12 + first), BLOCK)
            loaded = worker.load(keys[: first + 4], first, rows, request=ticket, asker=asker).result(30)
            assert (loaded.first, loaded.end) == (first, first + 4), loaded
        assert bytes(memory.view[8 * BLOCK :]) == bytes(memory.view[: 8 * BLOCK])
        scheduler.finished(ticket)
        assert worker.load(keys, 0, p.Places.rows(region, range(8), BLOCK), request=ticket, asker=asker).result(30).end == 8


def cancels_are_answered(path: str) -> None:
    """A cancelled request ends, its jobs too, and a request that is unknown is cancelled already."""
    keys = keys_of("cancels", 8)
    with SharedMemory(BLOCK * 8) as memory, client_of(path) as client:
        region = client.add_region(memory.fd, memory.length)
        for _ in range(20):
            ticket, _ = client.lookup(keys, prompt_tokens=128)
            job = client.load(keys, 0, p.Places.rows(region, range(8), BLOCK), request=ticket)
            assert client.cancel(ticket).exception(10) is None
            assert job.done() or job.exception(10) is None
        assert client.cancel(999_999).exception(1) is None


def the_rest_is_answered(path: str) -> None:
    """Hints are taken, pins judged, numbers told, pings returned; asyncio waits for the same futures."""
    keys = keys_of("comes back", 40)
    with client_of(path) as client:
        client.prefetch(keys)
        client.touch(keys)
        pin, pinned = client.pin(keys, 60.0)
        assert isinstance(pinned.result(30).outcome, p.PinOutcome)
        client.unpin(pin)

        async def ask() -> None:
            waiting = AsyncClient(client)
            assert await waiting.ping()
            assert isinstance(await waiting.statistics(), dict)
            ticket, found = await waiting.lookup(keys[:5], prompt_tokens=80)
            assert found.hit_blocks == 5
            client.finished(ticket)

        asyncio.run(ask())


def liars_are_refused(path: str) -> None:
    """Frames that are none, places outside their region, tickets twice: each ends the connection with its code."""

    def talk(*frames: p.Frame | bytes, fd: int | None = None) -> p.Frame | None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(path)
            splitter = p.Splitter()
            # An agent that has heard enough hangs up before everything is said.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for frame in frames:
                    data = frame if isinstance(frame, bytes) else p.encode(frame)
                    if isinstance(frame, p.RegionAdd) and fd is not None:
                        socket.send_fds(connection, [data], [fd])
                    else:
                        connection.sendall(data)
            last = None
            # An end with frames that nobody read is a reset.
            with contextlib.suppress(ConnectionResetError):
                while data := connection.recv(1 << 16):
                    for last in splitter.feed(data):
                        if isinstance(last, p.Refused):
                            return last
            return last

    hello = p.Hello("replay", "default", 16, BLOCK, namespace_digest(FIELDS), FIELDS)
    keys = tuple(keys_of("liars", 2))
    chain = p.Chain(keys)
    with tempfile.TemporaryFile() as file:
        file.truncate(2 * BLOCK)
        fd = file.fileno()
        add = p.RegionAdd(0, 2 * BLOCK)
        cases: list[tuple[p.Refusal, tuple[p.Frame | bytes, ...]]] = [
            (p.Refusal.FRAME, (b"\xff" * 64,)),
            (p.Refusal.FRAME, (p.Ping(1),)),
            (p.Refusal.VERSION, (replace(hello, oldest=2, newest=9),)),
            (p.Refusal.LAYOUT, (replace(hello, digest=bytes(32)),)),
            (p.Refusal.HELLO, (replace(hello, fields={"model": "x"}),)),
            (p.Refusal.HELLO, (replace(hello, block_tokens=17),)),
            (p.Refusal.FRAME, (hello, p.LookUp(5, p.Chain(keys, 0, 0, 1), 32), p.Found(5))),
            (p.Refusal.TICKET, (hello, p.LookUp(5, chain, 32), p.LookUp(5, chain, 32))),
            (p.Refusal.FRAME, (hello, p.Load(6, chain, 0, p.Places.rows(3, [0], BLOCK)))),
            (p.Refusal.FRAME, (hello, add)) if fd < 0 else (p.Refusal.REGION, (hello, p.RegionAdd(0, 3 * BLOCK))),
            (p.Refusal.FRAME, (hello, add, p.Load(6, chain, 0, p.Places.rows(0, [2], BLOCK)))),
            (p.Refusal.FRAME, (hello, add, p.Load(6, chain, 0, p.Places.rows(0, [0], BLOCK, BLOCK - 1)))),
            (p.Refusal.FRAME, (hello, add, add)),
            (p.Refusal.FRAME, (hello, add, p.RegionDrop(0), p.Load(6, chain, 0, p.Places.rows(0, [0], BLOCK)))),
            (p.Refusal.FRAME, (hello, p.Goodbye(), p.LookUp(5, chain, 32))),
        ]
        for code, frames in cases:
            last = talk(*frames, fd=fd)
            if frames[-1] == p.LookUp(5, chain, 32) and isinstance(frames[1], p.Goodbye):
                # The agent may have closed before it read more.
                assert last is None or isinstance(last, (p.Refused, p.Welcome)), last
                continue
            assert isinstance(last, p.Refused) and last.code == code, f"{code.name} for {frames[1:]}: {last}"


RULES = (
    saves_come_back,
    segments_keep_their_order,
    a_long_chain_is_one_message,
    groups_and_shards_do_not_meet,
    who_loads_need_not_be_who_asked,
    cancels_are_answered,
    the_rest_is_answered,
    liars_are_refused,
)


def main() -> int:
    """Runs every rule against the agent at the given socket."""
    for rule in RULES:
        rule(sys.argv[1])
        print(f"ok {rule.__name__}")
    return 0


if __name__ == "__main__":
    sys.stdout.flush()
    code = main()
    sys.stdout.flush()
    os._exit(code)
