"""The protocol's numbers and limits, and the fields that bodies are made of."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

VERSION = 1
HEADER = struct.Struct("<IBBHQ")
HEADER_BYTES = HEADER.size
BODY_BYTES_MAX = 4 << 20
KEYS_MAX = 16_384
SEGMENTS_MAX = 1_024
SLICES_MAX = 131_072
KEY_BYTES = 32


class ProtocolError(ValueError):
    """Bytes that are no frame of this protocol, or a value that does not fit one."""


class Kind(IntEnum):
    """What a frame is about."""

    HELLO = 0x01
    REGION_ADD = 0x02
    REGION_DROP = 0x03
    ARENA = 0x04
    LOOKUP = 0x10
    LOAD = 0x11
    SAVE = 0x12
    FINISHED = 0x13
    CANCEL = 0x14
    PREFETCH = 0x15
    TOUCH = 0x16
    PIN = 0x17
    UNPIN = 0x18
    TAKE = 0x19
    RESERVE = 0x1A
    COMMIT = 0x1B
    RELEASE = 0x1C
    SUBSCRIBE = 0x20
    STATS = 0x21
    PING = 0x22
    GOODBYE = 0x2F
    WELCOME = 0x81
    REGION_ADDED = 0x82
    REGION_DROPPED = 0x83
    ARENA_OPENED = 0x84
    FOUND = 0x90
    LOADED = 0x91
    SAVED = 0x92
    CANCELLED = 0x94
    PINNED = 0x97
    TAKEN = 0x99
    RESERVED = 0x9A
    COMMITTED = 0x9B
    RELEASED = 0x9C
    CHANGED = 0xA0
    STATISTICS = 0xA1
    PONG = 0xA2
    FAREWELL = 0xAF
    REFUSED = 0xFF


class Ownership(IntEnum):
    """Who owns the memory that an engine's regions show."""

    ENGINE = 0
    HOST = 1
    FULL = 2


class StopReason(IntEnum):
    """Why a turn ended."""

    UNKNOWN = 0
    TOOL_USE = 1
    END_TURN = 2
    BRANCH_ENDED = 3


class PinOutcome(IntEnum):
    """What became of a request to pin."""

    GRANTED = 0
    NOTHING_HERE = 1
    OVER_BUDGET = 2
    TOO_MANY = 3
    INVALID = 4
    EXPIRED = 5


class Refusal(IntEnum):
    """Why the agent ends a connection."""

    VERSION = 1
    HELLO = 2
    LAYOUT = 3
    USER = 4
    FRAME = 5
    TICKET = 6
    REGION = 7
    ROOM = 8
    SLOW = 9


def text_bytes(value: str, limit: int = 256) -> bytes:
    """A text as it travels: its length, and UTF-8 of at most ``limit`` bytes."""
    data = value.encode()
    if len(data) > limit:
        raise ProtocolError(f"a text of {len(data)} bytes, more than {limit}")
    return struct.pack("<H", len(data)) + data


class Reader:
    """Takes fields off a body, in order, and never reads past its end."""

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        end = self._at + count
        if end > len(self._body):
            raise ProtocolError(f"the body ends at byte {len(self._body)}, before {count} more from {self._at}")
        part = self._body[self._at : end]
        self._at = end
        return part

    def unpack(self, layout: str) -> tuple[int, ...]:
        """The next integers, by the letters of ``struct``, little-endian."""
        shape = struct.Struct("<" + layout)
        return shape.unpack(self.take(shape.size))

    def text(self, limit: int = 256) -> str:
        """The next text."""
        (count,) = self.unpack("H")
        if count > limit:
            raise ProtocolError(f"a text of {count} bytes, more than {limit}")
        try:
            return self.take(count).decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"a text that is no UTF-8: {error}") from None

    def rest(self) -> bytes:
        """All that is left."""
        part = self._body[self._at :]
        self._at = len(self._body)
        return part

    def end(self) -> None:
        """Refuses a body with more behind its last field."""
        if self._at != len(self._body):
            raise ProtocolError(f"{len(self._body) - self._at} bytes behind the last field")


def must_be_zero(*values: int) -> None:
    """Refuses what is kept for later."""
    if any(values):
        raise ProtocolError("a field that must be zero is not")


@dataclass(frozen=True, slots=True)
class Bare:
    """A frame without a body."""

    ticket: int = 0

    def body(self) -> bytes:
        """Its body."""
        return b""

    @classmethod
    def read(cls: type[_OfNothing], ticket: int, flags: int, reader: Reader) -> _OfNothing:
        """Reads a body."""
        return cls(ticket)


_OfNothing = TypeVar("_OfNothing", bound=Bare)
