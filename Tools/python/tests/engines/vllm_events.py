"""Events of ours, sent by our publisher, read by a real subscriber: maps with vLLM's own decoder, arrays by their places."""

from __future__ import annotations

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../.."))

import msgspec
import zmq
from vllm.distributed.kv_events import AllBlocksCleared, BlockRemoved, BlockStored, KVEventBatch

from holdfast_kv.events import Cleared, Encoding, Event, Publisher, Removed, Stored

HASHES = [bytes([number]) * 32 for number in range(3)]
EVENTS: list[Event] = [
    Stored(HASHES[1:], HASHES[0], list(range(32)), 16, group_idx=1, locality="LOCAL"),
    Removed(HASHES[:1]),
    Removed([9561501211280363793], "STORAGE", group_idx=0),
    Cleared(),
]


class SubscriberTest(unittest.TestCase):
    def batch(self, encoding: Encoding) -> bytes:
        publisher = Publisher("tcp://127.0.0.1:*", topic="kv@pod@m", encoding=encoding, rank=3,
                              replay_endpoint="tcp://127.0.0.1:*")  # fmt: skip
        self.addCleanup(publisher.close)
        context = zmq.Context()
        self.addCleanup(context.term)
        subscriber = context.socket(zmq.SUB)
        subscriber.connect(publisher.endpoint)
        subscriber.setsockopt_string(zmq.SUBSCRIBE, "kv@")
        # The first batches may leave before the subscription has come; the replay socket has them all.
        received = None
        for _ in range(100):
            publisher.publish(EVENTS, at=12.5)
            if subscriber.poll(100):
                received = subscriber.recv_multipart()
                break
        assert received is not None
        topic, sequence, payload = received
        self.assertEqual(topic, b"kv@pod@m")
        asker = context.socket(zmq.DEALER)
        asker.connect(publisher.replay_endpoint)
        asker.send_multipart([b"", (0).to_bytes(8, "big")])
        replayed = []
        while (message := asker.recv_multipart())[2] != b"\xff" * 8:
            replayed.append(message)
        self.assertEqual([int.from_bytes(message[2], "big") for message in replayed], list(range(len(replayed))))
        self.assertIn([b"", topic, sequence, payload], replayed)
        for socket in (subscriber, asker):
            socket.close(0)
        return payload

    def test_maps_are_read_by_vllm(self) -> None:
        batch = msgspec.msgpack.Decoder(KVEventBatch).decode(self.batch("map"))
        self.assertEqual((batch.ts, batch.data_parallel_rank), (12.5, 3))
        stored, removed, number, cleared = batch.events
        self.assertEqual(stored, BlockStored(
            block_hashes=HASHES[1:], parent_block_hash=HASHES[0], token_ids=list(range(32)), block_size=16, lora_id=None,
            medium="STORAGE", lora_name=None, group_idx=1, locality="LOCAL",
        ))  # fmt: skip
        self.assertEqual(removed, BlockRemoved(block_hashes=HASHES[:1], medium="STORAGE"))
        self.assertEqual(number.block_hashes, [9561501211280363793])
        self.assertEqual(cleared, AllBlocksCleared())
        ours = msgspec.msgpack.decode(self.batch("map"))
        theirs = msgspec.msgpack.decode(msgspec.msgpack.encode(batch))
        self.assertEqual(ours[1], theirs[1])

    def test_arrays_are_read_by_their_places(self) -> None:
        at, events, rank = msgspec.msgpack.decode(self.batch("array"))
        self.assertEqual((at, rank), (12.5, 3))
        self.assertEqual(events[0], ["BlockStored", HASHES[1:], HASHES[0], list(range(32)), 16, None, "STORAGE", None,
                                     None, 1, None, None])  # fmt: skip
        self.assertEqual(events[1], ["BlockRemoved", HASHES[:1], "STORAGE"])
        self.assertEqual(events[3], ["AllBlocksCleared"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
