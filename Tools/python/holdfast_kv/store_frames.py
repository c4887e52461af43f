"""Frames of the store's protocol, version 1: bytes in, values out, and back.

Written from the protocol's page alone (``Sources/KVTransport/KVTransport.docc/WireFormat.md``), which is how that page is
tested. It knows no sockets; ``store_client`` has one.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

from .checksums import crc32c, crc64

MAGIC = b"HFW1"
VERSION = 1
HEADER_BYTES = 32
BODY_BYTES_MAX = 1 << 20
HANDSHAKE_BODY_BYTES_MAX = 512
NAMES_MAX = 16_384
TEXT_BYTES_MAX = 256


class FrameError(ValueError):
    """Bytes that are no frame of this protocol. Nothing behind them can be trusted: the connection ends."""


class Operation(IntEnum):
    """What a frame is about."""

    HELLO = 0x01
    CHALLENGE = 0x02
    PROOF = 0x03
    WELCOME = 0x04
    REFUSED = 0x05
    OPEN_NAMESPACE = 0x10
    LOOK_UP = 0x11
    GET = 0x12
    PUT = 0x13
    PIN = 0x14
    UNPIN = 0x15
    DELETE = 0x16
    LIST = 0x17
    DESCRIBE = 0x18
    STAT = 0x19
    SUBSCRIBE = 0x1A
    REPORT_CORRUPT = 0x1B
    ADMINISTER = 0x1C
    CANCEL = 0x1D
    ADDED = 0x40
    REMOVED = 0x41
    OVERFLOW = 0x42
    GOODBYE = 0x50
    ATTACH = 0x60
    ATTACHED = 0x61
    DETACH = 0x62


class Status(IntEnum):
    """How a request ended."""

    OK = 0
    ABSENT = 1
    ALREADY_PRESENT = 2
    NOT_ADMITTED = 3
    OVER_BUDGET = 4
    BUSY = 5
    CORRUPT = 6
    UNAVAILABLE = 7
    FORBIDDEN = 8
    INVALID = 9
    FAILED = 10
    DEADLINE_PASSED = 11
    CANCELLED = 12


# Composite fields


@dataclass(frozen=True)
class ObjectName:
    """One shard of one group of layers of one block."""

    key: bytes
    group: int = 0
    shard: int = 0
    shards: int = 1

    def __bytes__(self) -> bytes:
        if len(self.key) != 32:
            raise ValueError(f"a key has 32 bytes, not {len(self.key)}")
        return self.key + struct.pack("<HHHH", self.group, self.shard, self.shards, 0)

    def checksum(self, payload: bytes) -> int:
        """The object's checksum: of its name, its length and its bytes."""
        return crc64(payload, crc64(bytes(self) + struct.pack("<Q", len(payload))))


@dataclass(frozen=True)
class Metadata:
    """What is kept with an object."""

    parent: bytes = bytes(32)
    session: int = 0
    index: int = 0
    eviction_class: int = 0

    def __bytes__(self) -> bytes:
        return self.parent + struct.pack("<QII", self.session, self.index, self.eviction_class)


@dataclass(frozen=True)
class ListedObject:
    """One line of a listing."""

    name: ObjectName
    payload_bytes: int
    is_pinned: bool
    is_restart_safe: bool


@dataclass(frozen=True)
class Object:
    """What came back for a get, beside the payload."""

    payload_bytes: int
    checksum: int
    metadata: Metadata


def slot(byte_count: int) -> bytes:
    """How much room there is for a payload. Over TCP neither address nor key mean anything."""
    return struct.pack("<QII", 0, 0, byte_count)


def text(value: str) -> bytes:
    """A length and UTF-8."""
    data = value.encode()
    if len(data) > TEXT_BYTES_MAX:
        raise ValueError(f"a text of {len(data)} bytes; {TEXT_BYTES_MAX} are allowed")
    return struct.pack("<H", len(data)) + data


def names(values: Sequence[ObjectName]) -> bytes:
    """A count and the names."""
    if len(values) > NAMES_MAX:
        raise ValueError(f"{len(values)} names in one request; {NAMES_MAX} are allowed")
    return struct.pack("<I", len(values)) + b"".join(map(bytes, values))


Item = TypeVar("Item")


class Body:
    """The fields of a body, read in order."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def take(self, count: int) -> bytes:
        part = self._data[self._offset : self._offset + count]
        if len(part) != count:
            raise FrameError(f"the body ends at byte {len(self._data)}, inside a field")
        self._offset += count
        return part

    def fields(self, form: str) -> tuple[Any, ...]:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))

    def name(self) -> ObjectName:
        key = self.take(32)
        group, shard, shards, zero = self.fields("HHHH")
        if zero != 0 or shard >= shards:
            raise FrameError(f"shard {shard} of {shards}")
        return ObjectName(key, group, shard, shards)

    def metadata(self) -> Metadata:
        return Metadata(self.take(32), *self.fields("QII"))

    def many(self, read: Callable[[], Item]) -> list[Item]:
        (count,) = self.fields("I")
        if count > NAMES_MAX:
            raise FrameError(f"a list of {count}")
        return [read() for _ in range(count)]

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._offset)

    def end(self) -> None:
        if left := len(self._data) - self._offset:
            raise FrameError(f"{left} bytes follow the last field")


# The frame


@dataclass(frozen=True)
class Header:
    """The 32 bytes before each body, without lengths and checksums of the body, which come with it."""

    operation: Operation
    number: int = 0
    namespace: int = 0
    status: Status = Status.OK
    is_reply: bool = False
    is_in_slot: bool = False
    kind: int = 0
    payload_bytes: int = 0


_HEADER = struct.Struct("<4sBBBBIHHIII")


def frame(header: Header, body: bytes = b"") -> bytes:
    """A whole frame; the payload, if there is one, follows it."""
    if len(body) > BODY_BYTES_MAX:
        raise ValueError(f"a body of {len(body)} bytes")
    flags = header.is_reply | header.is_in_slot << 1
    start = _HEADER.pack(
        MAGIC, VERSION, header.operation, flags, header.kind, header.number, header.status, header.namespace,
        len(body), crc32c(body) if body else 0, header.payload_bytes,
    )  # fmt: skip
    return start + struct.pack("<I", crc32c(start)) + body


@dataclass(frozen=True)
class Announced:
    """A header as it came, and the body that must follow."""

    header: Header
    body_bytes: int
    body_checksum: int

    def verify(self, body: bytes) -> None:
        """Refuses another body than the one that was announced."""
        if len(body) != self.body_bytes or (crc32c(body) if body else 0) != self.body_checksum:
            raise FrameError("the body's checksum is wrong")


def read_header(data: bytes) -> Announced:
    """Reads a header; magic and version first, then the checksum, then the rest."""
    if data[:4] != MAGIC:
        raise FrameError("this is no Holdfast frame")
    if data[4] != VERSION:
        raise FrameError(f"version {data[4]} is not spoken here")
    if crc32c(data[:28]) != struct.unpack_from("<I", data, 28)[0]:
        raise FrameError("the header's checksum is wrong")
    _, _, operation, flags, kind, number, status, namespace, body_bytes, checksum, payload = _HEADER.unpack(data[:28])
    if flags & ~3:
        raise FrameError(f"flags {flags:#x}")
    if body_bytes > BODY_BYTES_MAX:
        raise FrameError(f"a body of {body_bytes} bytes")
    try:
        header = Header(
            Operation(operation), number, namespace, Status(status), bool(flags & 1), bool(flags & 2), kind, payload
        )
    except ValueError as error:
        raise FrameError(str(error)) from None
    return Announced(header, body_bytes, checksum)


# Requests


def get_body(name: ObjectName, room: int) -> bytes:
    """The body of ``get``, with room for so many bytes."""
    return bytes(name) + slot(room)


def put_body(name: ObjectName, metadata: Metadata, checksum: int, payload_bytes: int) -> bytes:
    """The body of ``put``; the payload follows the frame."""
    return bytes(name) + bytes(metadata) + struct.pack("<Q", checksum) + slot(payload_bytes)


def pin_body(seconds: int, owner: str, values: Sequence[ObjectName]) -> bytes:
    """The body of ``pin``."""
    return struct.pack("<I", seconds) + text(owner) + names(values)


def unpin_body(owner: str, values: Sequence[ObjectName]) -> bytes:
    """The body of ``unpin``."""
    return text(owner) + names(values)


def list_body(cursor: int, count: int) -> bytes:
    """The body of ``list``."""
    return struct.pack("<QI", cursor, count)


def administer_body(verb: str, arguments: str) -> bytes:
    """The body of ``administer``."""
    return text(verb) + arguments.encode()


def cancel_body(number: int) -> bytes:
    """The body of ``cancel``."""
    return struct.pack("<I", number)


# Replies


def read_reply(header: Header, data: bytes) -> Any:
    """What a reply says beside its status: by kind None, a handle, a list of booleans, an ``Object``, a list of
    statuses, (objects, next cursor), or text."""
    body = Body(data)
    value: Any = None
    match header.kind:
        case 0:
            pass
        case 1:
            (value,) = body.fields("H")
        case 2:
            words = body.many(lambda: body.fields("Q")[0])
            value = [bool(word >> bit & 1) for word in words for bit in range(64)]
        case 3:
            size, checksum = body.fields("QQ")
            value = Object(size, checksum, body.metadata())
        case 4:
            value = [Status(status) for status in body.many(lambda: body.fields("H")[0])]
        case 5:
            (following,) = body.fields("Q")
            value = (body.many(lambda: _listed(body)), following)
        case 6:
            value = body.rest().decode()
        case _:
            raise FrameError(f"a reply's body of kind {header.kind}")
    body.end()
    if header.payload_bytes and not (isinstance(value, Object) and value.payload_bytes == header.payload_bytes):
        raise FrameError("a payload of another length than its object's")
    return value


def _listed(body: Body) -> ListedObject:
    name = body.name()
    payload_bytes, flags = body.fields("II")
    return ListedObject(name, payload_bytes, bool(flags & 1), bool(flags & 2))


# Who is there


def hello(tenant: str, nonce: bytes) -> bytes:
    """The body of ``hello``."""
    return struct.pack("<HHI", VERSION, VERSION, 0) + nonce + text(tenant)


def transcript(hello_body: bytes, challenge_body: bytes) -> bytes:
    """What both proofs are about."""
    if len(challenge_body) != 36:
        raise FrameError(f"a challenge of {len(challenge_body)} bytes")
    if (version := struct.unpack_from("<H", challenge_body)[0]) != VERSION:
        raise FrameError(f"the store chose version {version}")
    return hashlib.sha256(hello_body + challenge_body).digest()


def client_proof(key: bytes, about: bytes) -> bytes:
    """The body of ``proof``."""
    return hmac.digest(key, b"holdfast client 1" + about, "sha256")


@dataclass(frozen=True)
class Grants:
    """What a store grants in its welcome."""

    credits: int
    session: int
    body_bytes_max: int
    payload_bytes_max: int


def read_welcome(key: bytes, about: bytes, body: bytes) -> Grants:
    """The grants of a ``welcome``, if the store knows the key."""
    if len(body) != 48:
        raise FrameError(f"a welcome of {len(body)} bytes")
    expected = hmac.digest(key, b"holdfast server 1" + about + body[:16], "sha256")
    if not hmac.compare_digest(expected, body[16:]):
        raise FrameError("the store does not know the key: it is not the one it should be")
    granted, _, session, body_max, payload_max = struct.unpack_from("<HHIII", body)
    return Grants(granted, session, body_max, payload_max)
