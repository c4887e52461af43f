"""An engine in a process of its own, for tests: reads orders as lines of JSON, answers each with one.

    python3 engine_process.py SOCKET BLOCK_BYTES [reading|writing]

Orders: ``save`` and ``load`` blocks of a chain (its bytes follow from chain, shard and place, so that any process can tell
right ones), ``look_up`` one. What it loads it compares, byte by byte. One that maps the agent's arena can also ``write``
blocks into reserved slots, ``take`` blocks and compare them where they lie (and ``keep`` the lease), ``reserve`` slots that
it never fills, ask whether what it keeps is ``in_force``, and for the agent's ``numbers``.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from holdfast_kv.arena import Lease, Reservation
from holdfast_kv.client import Client, Settings
from holdfast_kv.namespace import REQUIRED_FIELDS
from holdfast_kv.protocol import Chain, Ownership
from holdfast_kv.regions import StagingRegion

FIELDS = dict.fromkeys(REQUIRED_FIELDS, "") | {"block_tokens": "16", "engine": "test", "model": "processes"}
SLOTS = 64


def chain_of(order: dict[str, Any]) -> Chain:
    """The chain that an order names."""
    keys = tuple(hashlib.sha256(f"{order['chain']}/{at}".encode()).digest() for at in range(order["count"]))
    return Chain(keys, 0, order.get("shard", 0), order.get("shards", 1))


def bytes_of(order: dict[str, Any], place: int, size: int) -> bytes:
    """What a block holds."""
    seed = hashlib.sha256(f"{order['chain']}/{order.get('shard', 0)}/{place}".encode()).digest()
    return (seed * (size // len(seed) + 1))[:size]


class Engine:
    """A client with memory of its own."""

    def __init__(self, socket: str, size: int, arena: str | None) -> None:
        self.size = size
        self.client = Client(
            socket, kind="test", store_namespace="processes", fields=FIELDS, block_bytes=size,
            ownership=Ownership.ENGINE if arena is None else Ownership.HOST, arena=arena, checks=arena is None,
            settings=Settings(lookup_deadline=10.0, load_deadline=20.0, save_deadline=20.0, backoff=0.02, backoff_max=0.1),
        )  # fmt: skip
        self.kept: list[Lease | Reservation] = []
        self.staging = StagingRegion(size, SLOTS)
        self.staging.region = self.client.add_region(self.staging.memory.fd, self.staging.memory.length)

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Does what an order says."""
        what = order["do"]
        if what == "wait":
            return {"open": self.client.wait_open(order.get("seconds", 20.0))}
        if what == "numbers":
            return dict(self.client.statistics().result())
        if what == "in_force":
            return {"in_force": sum(loan.in_force for loan in self.kept), "kept": len(self.kept)}
        if what == "reserve":
            held = self.client.reserve(order["count"], lifetime=order.get("lifetime", 0.0)).result()
            if held is not None:
                self.kept.append(held)
            return {"slots": 0 if held is None else len(held)}
        chain = chain_of(order)
        if what == "write":
            reservation = self.client.reserve(len(chain.keys)).result()
            if reservation is None:
                return {"kept": 0}
            for place in range(len(reservation)):
                reservation[place][:] = bytes_of(order, place, self.size)
            keys = list(chain.keys[: len(reservation)])
            return {"kept": reservation.commit(keys).result().kept.bit_count()}
        if what == "take":
            lease = self.client.take(
                chain, 0, len(chain.keys), verify=order.get("verify", True), lifetime=order.get("lifetime", 0.0)
            ).result()
            if lease is None:
                return {"came": 0, "right": 0, "in_force": False}
            right = sum(lease[place] == bytes_of(order, place, self.size) for place in range(len(lease)))
            answer = {"came": len(lease), "right": right, "in_force": lease.in_force}
            if order.get("keep"):
                self.kept.append(lease)
            else:
                assert lease.release().result() is answer["in_force"]
            return answer
        if what == "look_up":
            ticket, found = self.client.lookup(chain, prompt_tokens=16 * len(chain.keys))
            hits = found.result().hit_blocks
            self.client.finished(ticket)
            return {"hits": hits}
        slots = self.staging.acquire(len(chain.keys))
        assert slots is not None
        try:
            if what == "save":
                for place, slot in enumerate(slots):
                    self.staging.bytes_of(slot)[:] = bytes_of(order, place, self.size)
                return {"kept": self.client.save(chain, 0, self.staging.places(slots)).result().kept.bit_count()}
            for slot in slots:
                self.staging.bytes_of(slot)[:] = bytes(self.size)
            loaded = self.client.load(chain, 0, self.staging.places(slots)).result()
            right = sum(
                bytes(self.staging.bytes_of(slot)) == bytes_of(order, place, self.size)
                for place, slot in enumerate(slots[: loaded.end])
            )
            return {"came": loaded.end, "right": right}
        finally:
            self.staging.release(slots)


def main() -> None:
    """Obeys until its input ends."""
    engine = Engine(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
    for line in sys.stdin:
        print(json.dumps(engine.obey(json.loads(line))), flush=True)
    engine.client.close(1.0)


if __name__ == "__main__":
    main()
