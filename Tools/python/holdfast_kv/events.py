"""What routers read: blocks that came and went, as vLLM and SGLang publish them, in both encodings in use.

A batch is a msgpack array ``[time, [event …], data-parallel rank]``. In the ``map`` encoding an event is a map with a
``type`` and without fields that have their default (vLLM 0.33, SGLang 0.5, Dynamo); in the ``array`` encoding it is an
array that begins with its type and gives every field its place (vLLM before that, llm-d). An engine with a socket of its
own gets our events through its connector's ``take_events``; ``Publisher`` is for those without, or where a router reads
arrays.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Encoding = Literal["map", "array"]
Hash = bytes | int


@dataclass(frozen=True)
class Stored:
    """Blocks that can be found now, a run of one chain. Without token ids it only tells the place of known blocks."""

    block_hashes: Sequence[Hash]
    parent_block_hash: Hash | None = None
    token_ids: Sequence[int] = ()
    block_size: int = 0
    lora_id: int | None = None
    medium: str | None = "STORAGE"
    lora_name: str | None = None
    extra_keys: Sequence[Any] | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    kv_cache_spec_sliding_window: int | None = None
    locality: str | None = None


@dataclass(frozen=True)
class Removed:
    """Blocks that can be found there no more."""

    block_hashes: Sequence[Hash]
    medium: str | None = "STORAGE"
    group_idx: int | None = None
    locality: str | None = None


@dataclass(frozen=True)
class Cleared:
    """Nothing can be found any more."""


Event = Stored | Removed | Cleared

# Fields without a default in vLLM: always there. Behind them, those that a map leaves out at their default.
_STORED = ("block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name")
_STORED_MORE = ("extra_keys", "group_idx", "kv_cache_spec_kind", "kv_cache_spec_sliding_window", "locality")
_STORED_ARRAY = (*_STORED, "extra_keys", "group_idx", "kv_cache_spec_kind", "kv_cache_spec_sliding_window")
_REMOVED = ("block_hashes", "medium")
_REMOVED_MORE = ("group_idx", "locality")


def encode(events: Sequence[Event], *, at: float, rank: int | None = None, encoding: Encoding = "map") -> bytes:
    """A batch's payload."""
    out = bytearray()
    _pack(out, [at, [_event(event, encoding) for event in events], rank])
    return bytes(out)


def _event(event: Event, encoding: Encoding) -> Any:
    name: str
    always: tuple[str, ...]
    more: tuple[str, ...]
    places: tuple[str, ...]
    if isinstance(event, Stored):
        name, always, more, places = "BlockStored", _STORED, _STORED_MORE, _STORED_ARRAY
    elif isinstance(event, Removed):
        name, always, more, places = "BlockRemoved", _REMOVED, _REMOVED_MORE, _REMOVED
    else:
        name, always, more, places = "AllBlocksCleared", (), (), ()
    if encoding == "array":
        return [name, *(getattr(event, field) for field in places)]
    fields = {"type": name} | {field: getattr(event, field) for field in always}
    return fields | {field: value for field in more if (value := getattr(event, field)) is not None}


def _pack(out: bytearray, value: Any) -> None:
    """Msgpack, as much of it as events need."""
    if value is None:
        out.append(0xC0)
    elif isinstance(value, bool):
        out.append(0xC3 if value else 0xC2)
    elif isinstance(value, int):
        _pack_int(out, value)
    elif isinstance(value, float):
        out += struct.pack(">Bd", 0xCB, value)
    elif isinstance(value, str):
        data = value.encode()
        if len(data) < 32:
            out.append(0xA0 | len(data))
        else:
            _pack_length(out, len(data), (0xD9, 0xDA, 0xDB))
        out += data
    elif isinstance(value, (bytes, bytearray, memoryview)):
        _pack_length(out, len(value), (0xC4, 0xC5, 0xC6))
        out += value
    elif isinstance(value, dict):
        if len(value) < 16:
            out.append(0x80 | len(value))
        else:
            _pack_length(out, len(value), (None, 0xDE, 0xDF))
        for key, item in value.items():
            _pack(out, key)
            _pack(out, item)
    else:
        items = list(value)
        if len(items) < 16:
            out.append(0x90 | len(items))
        else:
            _pack_length(out, len(items), (None, 0xDC, 0xDD))
        for item in items:
            _pack(out, item)


def _pack_int(out: bytearray, value: int) -> None:
    if 0 <= value < 0x80:
        out.append(value)
    elif -32 <= value < 0:
        out.append(value & 0xFF)
    elif value >= 0:
        for width, mark, form in ((8, 0xCC, ">BB"), (16, 0xCD, ">BH"), (32, 0xCE, ">BI"), (64, 0xCF, ">BQ")):
            if value < 1 << width:
                out += struct.pack(form, mark, value)
                return
        raise OverflowError(f"{value} has more than 64 bits")
    else:
        for width, mark, form in ((8, 0xD0, ">Bb"), (16, 0xD1, ">Bh"), (32, 0xD2, ">Bi"), (64, 0xD3, ">Bq")):
            if value >= -(1 << (width - 1)):
                out += struct.pack(form, mark, value)
                return
        raise OverflowError(f"{value} has more than 64 bits")


def _pack_length(out: bytearray, length: int, marks: tuple[int | None, int, int]) -> None:
    short, middle, long = marks
    if short is not None and length < 1 << 8:
        out += struct.pack(">BB", short, length)
    elif length < 1 << 16:
        out += struct.pack(">BH", middle, length)
    else:
        out += struct.pack(">BI", long, length)


class Publisher:
    """A ZMQ socket that publishes batches as vLLM does: ``[topic, sequence, payload]``, with a socket that replays.

    Needs pyzmq, which engines bring. It binds where the endpoint has ``*``, ``::``, ``ipc:`` or ``inproc:``, and connects
    elsewhere. Any thread may publish.
    """

    def __init__(
        self,
        endpoint: str = "tcp://*:5557",
        *,
        topic: str = "",
        encoding: Encoding = "map",
        rank: int | None = None,
        replay_endpoint: str | None = None,
        buffer_steps: int = 10_000,
    ) -> None:
        import zmq

        self._encoding = encoding
        self._topic = topic.encode()
        self._rank = rank
        self._lock = threading.Lock()
        self._sequence = 0
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=buffer_steps)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.set_hwm(100_000)
        self.endpoint = _open(self._socket, endpoint)
        self._replay: threading.Thread | None = None
        self._is_closing = False
        self.replay_endpoint: str | None = None
        if replay_endpoint is not None:
            router = self._context.socket(zmq.ROUTER)
            self.replay_endpoint = _open(router, replay_endpoint)
            self._replay = threading.Thread(target=self._serve, args=(router,), name="holdfast-events", daemon=True)
            self._replay.start()

    def publish(self, events: Sequence[Event], *, at: float | None = None) -> int:
        """Publishes a batch; its number."""
        payload = encode(events, at=time.time() if at is None else at, rank=self._rank, encoding=self._encoding)
        with self._lock:
            number = self._sequence
            self._sequence += 1
            self._kept.append((number, payload))
            self._socket.send_multipart([self._topic, number.to_bytes(8, "big"), payload])
        return number

    def _serve(self, router: Any) -> None:
        while not self._is_closing:
            if not router.poll(100):
                continue
            asker, empty, start = router.recv_multipart()[:3]
            with self._lock:
                kept = list(self._kept)
            for number, payload in kept:
                if number >= int.from_bytes(start, "big"):
                    router.send_multipart([asker, empty, self._topic, number.to_bytes(8, "big"), payload])
            router.send_multipart([asker, empty, self._topic, b"\xff" * 8, b""])
        router.close(0)

    def close(self) -> None:
        """Ends."""
        self._is_closing = True
        if self._replay is not None:
            self._replay.join()
        self._socket.close(1000)
        self._context.term()


def _open(socket: Any, endpoint: str) -> str:
    import zmq

    if any(mark in endpoint for mark in ("*", "::", "ipc:", "inproc:")):
        socket.bind(endpoint)
    else:
        socket.connect(endpoint)
    return str(socket.getsockopt_string(zmq.LAST_ENDPOINT))
