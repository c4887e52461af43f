"""Frames of a connection as a whole: who attaches, what memory it shares, what it hears, and how it ends."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias, TypeVar

from .chains import Name
from .fields import (
    BODY_BYTES_MAX,
    KEY_BYTES,
    KEYS_MAX,
    SLICES_MAX,
    VERSION,
    Bare,
    Kind,
    Ownership,
    ProtocolError,
    Reader,
    Refusal,
    must_be_zero,
    text_bytes,
)


@dataclass(frozen=True, slots=True)
class Hello:
    """What an engine says first. ``digest`` is ``namespace_digest(fields)``."""

    KIND: ClassVar[Kind] = Kind.HELLO
    kind: str
    store_namespace: str
    block_tokens: int
    block_bytes: int
    digest: bytes
    fields: Mapping[str, str]
    client: str = ""
    ownership: Ownership = Ownership.ENGINE
    oldest: int = VERSION
    newest: int = VERSION
    ticket: int = 0

    def body(self) -> bytes:
        """Its body."""
        if len(self.digest) != KEY_BYTES:
            raise ProtocolError(f"a digest has {KEY_BYTES} bytes, not {len(self.digest)}")
        parts = [
            struct.pack("<HHI", self.oldest, self.newest, self.ownership),
            struct.pack("<IIQ", self.block_tokens, 0, self.block_bytes),
            self.digest,
            text_bytes(self.kind, 64),
            text_bytes(self.client),
            text_bytes(self.store_namespace),
            struct.pack("<H", len(self.fields)),
        ]
        for name in sorted(self.fields, key=lambda text: text.encode()):
            parts += (text_bytes(name), text_bytes(self.fields[name], 16_384))
        return b"".join(parts)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> Hello:
        """Reads a body."""
        oldest, newest, ownership, *zeros = reader.unpack("HHBBBB")
        block_tokens, zero, block_bytes = reader.unpack("IIQ")
        must_be_zero(zero, *zeros)
        digest = reader.take(KEY_BYTES)
        kind, client, store_namespace = reader.text(64), reader.text(), reader.text()
        (count,) = reader.unpack("H")
        fields: dict[str, str] = {}
        for _ in range(count):
            name = reader.text()
            if name in fields:
                raise ProtocolError(f"the field {name} is given twice")
            fields[name] = reader.text(16_384)
        return cls(
            kind,
            store_namespace,
            block_tokens,
            block_bytes,
            digest,
            fields,
            client,
            Ownership(ownership),
            oldest,
            newest,
        )


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the agent answers to a hello."""

    KIND: ClassVar[Kind] = Kind.WELCOME
    engine: int
    agent: int
    jobs_max: int = 256
    requests_max: int = 4096
    keys_max: int = KEYS_MAX
    slices_max: int = SLICES_MAX
    body_bytes_max: int = BODY_BYTES_MAX
    regions_max: int = 64
    program: str = ""
    version: int = VERSION
    ticket: int = 0

    def body(self) -> bytes:
        """Its body."""
        return struct.pack(
            "<HHIQIIIIIIQ", self.version, 0, self.engine, self.agent, self.jobs_max, self.requests_max, self.keys_max,
            self.slices_max, self.body_bytes_max, self.regions_max, 0,
        ) + text_bytes(self.program)  # fmt: skip

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> Welcome:
        """Reads a body."""
        version, zero, engine, agent, jobs, requests, keys, slices, body, regions, last = reader.unpack("HHIQIIIIIIQ")
        must_be_zero(zero, last)
        return cls(engine, agent, jobs, requests, keys, slices, body, regions, reader.text(), version)


@dataclass(frozen=True, slots=True)
class RegionAdd:
    """Memory that the agent may use; a descriptor travels with it."""

    KIND: ClassVar[Kind] = Kind.REGION_ADD
    region: int
    length: int
    ticket: int = 0

    def body(self) -> bytes:
        """Its body."""
        return struct.pack("<IIQ", self.region, 0, self.length)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> RegionAdd:
        """Reads a body."""
        region, zero, length = reader.unpack("IIQ")
        must_be_zero(zero)
        return cls(region, length)


@dataclass(frozen=True, slots=True)
class _Region:
    region: int
    ticket: int = 0

    def body(self) -> bytes:
        """Its body."""
        return struct.pack("<II", self.region, 0)

    @classmethod
    def read(cls: type[_OfRegion], ticket: int, flags: int, reader: Reader) -> _OfRegion:
        """Reads a body."""
        region, zero = reader.unpack("II")
        must_be_zero(zero)
        return cls(region)


_OfRegion = TypeVar("_OfRegion", bound=_Region)


class RegionDrop(_Region):
    """This memory goes."""

    KIND: ClassVar[Kind] = Kind.REGION_DROP
    __slots__ = ()


class RegionAdded(_Region):
    """The agent has mapped it."""

    KIND: ClassVar[Kind] = Kind.REGION_ADDED
    __slots__ = ()


class RegionDropped(_Region):
    """The agent touches it no more."""

    KIND: ClassVar[Kind] = Kind.REGION_DROPPED
    __slots__ = ()


class Subscribe(Bare):
    """Tell of blocks that come and go."""

    KIND: ClassVar[Kind] = Kind.SUBSCRIBE
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Changed:
    """Blocks that can be found, and can be found no more. ``has_gap``: others were lost before these."""

    KIND: ClassVar[Kind] = Kind.CHANGED
    added: tuple[Name, ...] = ()
    removed: tuple[Name, ...] = ()
    has_gap: bool = False
    ticket: int = 0

    def body(self) -> bytes:
        """Its body."""
        names = b"".join(
            name.key + struct.pack("<4H", name.group, name.shard, name.shards, 0) for name in self.added + self.removed
        )
        return struct.pack("<II", len(self.added), len(self.removed)) + names

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> Changed:
        """Reads a body."""
        added, removed = reader.unpack("II")
        joined = reader.take(40 * (added + removed))
        names = []
        for key, group, shard, shards, zero in struct.iter_unpack("<32s4H", joined):
            must_be_zero(zero)
            names.append(Name(key, group, shard, shards))
        return cls(tuple(names[:added]), tuple(names[added:]), bool(flags & 1))


class Stats(Bare):
    """Asks for numbers."""

    KIND: ClassVar[Kind] = Kind.STATS
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers by name."""

    KIND: ClassVar[Kind] = Kind.STATISTICS
    ticket: int
    values: Mapping[str, int] = field(default_factory=dict)

    def body(self) -> bytes:
        """Its body."""
        parts = [text_bytes(name) + struct.pack("<Q", value) for name, value in self.values.items()]
        return struct.pack("<I", len(parts)) + b"".join(parts)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> Statistics:
        """Reads a body."""
        (count,) = reader.unpack("I")
        values: dict[str, int] = {}
        for _ in range(count):
            name = reader.text()
            (values[name],) = reader.unpack("Q")
        return cls(ticket, values)


@dataclass(frozen=True, slots=True)
class Ping:
    """Is anybody there?"""

    KIND: ClassVar[Kind] = Kind.PING
    ticket: int = 0
    payload: bytes = b""

    def body(self) -> bytes:
        """Its body."""
        return self.payload

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> Ping:
        """Reads a body."""
        return cls(ticket, reader.rest())


@dataclass(frozen=True, slots=True)
class Pong:
    """Yes."""

    KIND: ClassVar[Kind] = Kind.PONG
    ticket: int = 0
    payload: bytes = b""

    def body(self) -> bytes:
        """Its body."""
        return self.payload

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> Pong:
        """Reads a body."""
        return cls(ticket, reader.rest())


class Goodbye(Bare):
    """The engine goes when its jobs have ended."""

    KIND: ClassVar[Kind] = Kind.GOODBYE
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Farewell:
    """The agent is about to stop."""

    KIND: ClassVar[Kind] = Kind.FAREWELL
    reason: str = ""
    ticket: int = 0

    def body(self) -> bytes:
        """Its body."""
        return text_bytes(self.reason, 16_384)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> Farewell:
        """Reads a body."""
        return cls(reader.text(16_384))


@dataclass(frozen=True, slots=True)
class Refused:
    """The agent ends the connection, and why."""

    KIND: ClassVar[Kind] = Kind.REFUSED
    ticket: int
    code: Refusal
    reason: str

    def body(self) -> bytes:
        """Its body."""
        return struct.pack("<H", self.code) + text_bytes(self.reason, 16_384)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> Refused:
        """Reads a body."""
        (code,) = reader.unpack("H")
        return cls(ticket, Refusal(code), reader.text(16_384))


SessionFrame: TypeAlias = (
    Hello | Welcome | RegionAdd | RegionDrop | RegionAdded | RegionDropped | Subscribe | Changed | Stats | Statistics
    | Ping | Pong | Goodbye | Farewell | Refused
)  # fmt: skip
"""Any frame of a connection as a whole."""
