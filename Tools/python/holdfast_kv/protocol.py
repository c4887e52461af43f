"""The engine's protocol: frames as bytes and as values.

Every byte is described in ``Sources/KVAgent/KVAgent.docc/EngineProtocol.md``; both sides check the same vectors
(``Tests/KVAgentTests/engine-protocol-vectors.json``). Nothing here does I/O. Durations are integer nanoseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar, Protocol, TypeAlias, TypeVar

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


def _text(value: str, limit: int = 256) -> bytes:
    data = value.encode()
    if len(data) > limit:
        raise ProtocolError(f"a text of {len(data)} bytes, more than {limit}")
    return struct.pack("<H", len(data)) + data


class _Reader:
    """Takes fields off a body, in order, and never reads past its end."""

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._body):
            raise ProtocolError(f"the body ends at byte {len(self._body)}, before {count} more from {self._at}")
        part = self._body[self._at : end]
        self._at = end
        return part

    def unpack(self, layout: str) -> tuple[int, ...]:
        shape = struct.Struct("<" + layout)
        return shape.unpack(self.take(shape.size))

    def text(self, limit: int = 256) -> str:
        (count,) = self.unpack("H")
        if count > limit:
            raise ProtocolError(f"a text of {count} bytes, more than {limit}")
        try:
            return self.take(count).decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"a text that is no UTF-8: {error}") from None

    def rest(self) -> bytes:
        part = self._body[self._at :]
        self._at = len(self._body)
        return part

    def end(self) -> None:
        if self._at != len(self._body):
            raise ProtocolError(f"{len(self._body) - self._at} bytes behind the last field")


def _zero(*values: int) -> None:
    if any(values):
        raise ProtocolError("a field that must be zero is not")


def chain_head(count: int, group: int, shard: int, shards: int) -> bytes:
    """What stands before the keys of a chain."""
    return struct.pack("<IHHHH", count, group, shard, shards, 0)


class AnyChain(Protocol):
    """A ``Chain``, or what makes its keys when it is sent."""

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Its keys, from the root on."""

    @property
    def group(self) -> int:
        """The group of layers."""

    @property
    def shard(self) -> int:
        """The part of each block."""

    @property
    def shards(self) -> int:
        """How many parts blocks have."""

    def encode(self) -> bytes:
        """Its bytes."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A run of block keys from the root on, of one group and one shard."""

    keys: tuple[bytes, ...] = ()
    group: int = 0
    shard: int = 0
    shards: int = 1

    def encode(self) -> bytes:
        """Its bytes."""
        joined = b"".join(self.keys)
        if len(self.keys) > KEYS_MAX:
            raise ProtocolError(f"a chain of {len(self.keys)} keys, more than {KEYS_MAX}")
        if len(joined) != KEY_BYTES * len(self.keys):
            raise ProtocolError(f"keys have {KEY_BYTES} bytes each")
        return chain_head(len(self.keys), self.group, self.shard, self.shards) + joined

    @classmethod
    def decode(cls, reader: _Reader, *, least: int = 1) -> Chain:
        """Reads one; ``least`` keys must be there."""
        count, group, shard, shards, zero = reader.unpack("IHHHH")
        _zero(zero)
        if not least <= count <= KEYS_MAX or shard >= shards:
            raise ProtocolError(f"a chain of {count} keys, shard {shard} of {shards}")
        joined = reader.take(KEY_BYTES * count)
        keys = tuple(joined[at : at + KEY_BYTES] for at in range(0, len(joined), KEY_BYTES))
        return cls(keys, group, shard, shards)


@dataclass(frozen=True, slots=True)
class Places:
    """Where blocks lie: ``segments`` slices a block, each (region, offset, length), packed as they travel."""

    blocks: int
    segments: int
    packed: bytes

    @classmethod
    def of(cls, slices: Iterable[tuple[int, int, int]], segments: int = 1) -> Places:
        """Places of slices (region, offset, length), block by block."""
        flat: list[int] = []
        for region, offset, length in slices:
            flat += (region, length, offset)
        count = len(flat) // 3
        if count == 0 or count % segments:
            raise ProtocolError(f"{count} slices are no whole blocks of {segments}")
        return cls(count // segments, segments, struct.pack("<" + "IIQ" * count, *flat))

    @classmethod
    def rows(cls, region: int, rows: Iterable[int], stride: int, length: int | None = None) -> Places:
        """Blocks that are rows of one table: row r lies at ``r * stride``."""
        return cls.of([(region, int(row) * stride, stride if length is None else length) for row in rows])

    @property
    def slices(self) -> list[tuple[int, int, int]]:
        """The slices as (region, offset, length)."""
        return [(region, offset, length) for region, length, offset in struct.iter_unpack("<IIQ", self.packed)]

    def encode(self) -> bytes:
        """Its bytes."""
        count = self.blocks * self.segments
        if not (0 < count <= SLICES_MAX and 1 <= self.segments <= SEGMENTS_MAX and self.blocks <= KEYS_MAX):
            raise ProtocolError(f"{self.blocks} blocks of {self.segments} slices")
        return struct.pack("<IHH", self.blocks, self.segments, 0) + self.packed

    @classmethod
    def decode(cls, reader: _Reader) -> Places:
        """Reads one."""
        blocks, segments, zero = reader.unpack("IHH")
        _zero(zero)
        if not (1 <= blocks <= KEYS_MAX and 1 <= segments <= SEGMENTS_MAX and blocks * segments <= SLICES_MAX):
            raise ProtocolError(f"{blocks} blocks of {segments} slices")
        return cls(blocks, segments, reader.take(16 * blocks * segments))


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
            _text(self.kind, 64),
            _text(self.client),
            _text(self.store_namespace),
            struct.pack("<H", len(self.fields)),
        ]
        for name in sorted(self.fields, key=lambda text: text.encode()):
            parts += (_text(name), _text(self.fields[name], 16_384))
        return b"".join(parts)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Hello:
        """Reads a body."""
        oldest, newest, ownership, *zeros = reader.unpack("HHBBBB")
        block_tokens, zero, block_bytes = reader.unpack("IIQ")
        _zero(zero, *zeros)
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
        ) + _text(self.program)  # fmt: skip

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Welcome:
        """Reads a body."""
        version, zero, engine, agent, jobs, requests, keys, slices, body, regions, last = reader.unpack("HHIQIIIIIIQ")
        _zero(zero, last)
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
    def read(cls, ticket: int, flags: int, reader: _Reader) -> RegionAdd:
        """Reads a body."""
        region, zero, length = reader.unpack("IIQ")
        _zero(zero)
        return cls(region, length)


@dataclass(frozen=True, slots=True)
class _Region:
    region: int
    ticket: int = 0

    def body(self) -> bytes:
        """Its body."""
        return struct.pack("<II", self.region, 0)

    @classmethod
    def read(cls: type[_OfRegion], ticket: int, flags: int, reader: _Reader) -> _OfRegion:
        """Reads a body."""
        region, zero = reader.unpack("II")
        _zero(zero)
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


@dataclass(frozen=True, slots=True)
class LookUp:
    """A prompt whose blocks are looked up."""

    KIND: ClassVar[Kind] = Kind.LOOKUP
    ticket: int
    chain: AnyChain
    prompt_tokens: int
    engine_blocks: int = 0
    session: int = 0
    turn: int = -1

    def body(self) -> bytes:
        """Its body."""
        head = struct.pack("<IIQiI", self.prompt_tokens, self.engine_blocks, self.session, self.turn, 0)
        return head + self.chain.encode()

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> LookUp:
        """Reads a body."""
        tokens, blocks, session, turn, zero = reader.unpack("IIQiI")
        _zero(zero)
        return cls(ticket, Chain.decode(reader), tokens, blocks, session, turn)


@dataclass(frozen=True, slots=True)
class Load:
    """Blocks that the engine wants in its memory. An empty chain: that of the request's look-up."""

    KIND: ClassVar[Kind] = Kind.LOAD
    ticket: int
    chain: AnyChain
    first: int
    places: Places
    request: int = 0
    compute_wait: int = 0
    deadline: int = 0

    def body(self) -> bytes:
        """Its body."""
        head = struct.pack("<QIIQQ", self.request, self.first, 0, self.compute_wait, self.deadline)
        return head + self.chain.encode() + self.places.encode()

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Load:
        """Reads a body."""
        request, first, zero, wait, deadline = reader.unpack("QIIQQ")
        _zero(zero)
        chain = Chain.decode(reader, least=0 if request else 1)
        places = Places.decode(reader)
        if chain.keys and first + places.blocks > len(chain.keys):
            raise ProtocolError(f"blocks {first} to {first + places.blocks} of a chain of {len(chain.keys)}")
        return cls(ticket, chain, first, places, request, wait, deadline)


@dataclass(frozen=True, slots=True)
class Save:
    """New blocks that the engine offers; the chain ends with the last of them."""

    KIND: ClassVar[Kind] = Kind.SAVE
    ticket: int
    chain: AnyChain
    first: int
    places: Places
    request: int = 0
    eviction_class: int = 0

    def body(self) -> bytes:
        """Its body."""
        head = struct.pack("<QIB3x", self.request, self.first, self.eviction_class)
        return head + self.chain.encode() + self.places.encode()

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Save:
        """Reads a body."""
        request, first, eviction_class, *zeros = reader.unpack("QIBBBB")
        _zero(*zeros)
        chain, places = Chain.decode(reader), Places.decode(reader)
        if first + places.blocks != len(chain.keys):
            raise ProtocolError(f"blocks {first} to {first + places.blocks} of a chain of {len(chain.keys)}")
        return cls(ticket, chain, first, places, request, eviction_class)


@dataclass(frozen=True, slots=True)
class Finished:
    """A request's end as its engine saw it."""

    KIND: ClassVar[Kind] = Kind.FINISHED
    ticket: int
    reason: StopReason = StopReason.UNKNOWN
    cached_tokens: int = -1
    time_to_first_token: int = 0
    resumes_after: int = 0
    answer_tokens: int = 0

    def body(self) -> bytes:
        """Its body."""
        return struct.pack(
            "<IiQQII", self.reason, self.cached_tokens, self.time_to_first_token, self.resumes_after,
            self.answer_tokens, 0,
        )  # fmt: skip

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Finished:
        """Reads a body."""
        reason, cached, first, resumes, answer, zero = reader.unpack("IiQQII")
        _zero(zero)
        return cls(ticket, StopReason(reason), cached, first, resumes, answer)


@dataclass(frozen=True, slots=True)
class _Bare:
    ticket: int = 0

    def body(self) -> bytes:
        """Its body."""
        return b""

    @classmethod
    def read(cls: type[_OfNothing], ticket: int, flags: int, reader: _Reader) -> _OfNothing:
        """Reads a body."""
        return cls(ticket)


_OfNothing = TypeVar("_OfNothing", bound=_Bare)


class Cancel(_Bare):
    """Ends a job or a request."""

    KIND: ClassVar[Kind] = Kind.CANCEL
    __slots__ = ()


class Cancelled(_Bare):
    """Nothing touches the places any more."""

    KIND: ClassVar[Kind] = Kind.CANCELLED
    __slots__ = ()


class Unpin(_Bare):
    """Takes a pin back."""

    KIND: ClassVar[Kind] = Kind.UNPIN
    __slots__ = ()


class Subscribe(_Bare):
    """Tell of blocks that come and go."""

    KIND: ClassVar[Kind] = Kind.SUBSCRIBE
    __slots__ = ()


class Stats(_Bare):
    """Asks for numbers."""

    KIND: ClassVar[Kind] = Kind.STATS
    __slots__ = ()


class Goodbye(_Bare):
    """The engine goes when its jobs have ended."""

    KIND: ClassVar[Kind] = Kind.GOODBYE
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Prefetch:
    """These blocks will be asked for."""

    KIND: ClassVar[Kind] = Kind.PREFETCH
    chain: AnyChain
    ticket: int = 0

    def body(self) -> bytes:
        """Its body."""
        return self.chain.encode()

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Prefetch:
        """Reads a body."""
        return cls(Chain.decode(reader))


@dataclass(frozen=True, slots=True)
class Touch:
    """These blocks were used without a request."""

    KIND: ClassVar[Kind] = Kind.TOUCH
    chain: AnyChain
    ticket: int = 0

    def body(self) -> bytes:
        """Its body."""
        return self.chain.encode()

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Touch:
        """Reads a body."""
        return cls(Chain.decode(reader))


@dataclass(frozen=True, slots=True)
class Pin:
    """Keep what is here of a chain, for ``lifetime`` nanoseconds."""

    KIND: ClassVar[Kind] = Kind.PIN
    ticket: int
    chain: AnyChain
    lifetime: int

    def body(self) -> bytes:
        """Its body."""
        return struct.pack("<Q", self.lifetime) + self.chain.encode()

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Pin:
        """Reads a body."""
        (lifetime,) = reader.unpack("Q")
        return cls(ticket, Chain.decode(reader), lifetime)


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
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Ping:
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
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Pong:
        """Reads a body."""
        return cls(ticket, reader.rest())


@dataclass(frozen=True, slots=True)
class Found:
    """Leading blocks that could be loaded, the engine's own included, and of those how many by nearest place."""

    KIND: ClassVar[Kind] = Kind.FOUND
    ticket: int
    hit_blocks: int = 0
    hbm_blocks: int = 0
    dram_blocks: int = 0
    nvme_blocks: int = 0
    flash_blocks: int = 0

    def body(self) -> bytes:
        """Its body."""
        return struct.pack(
            "<6I", self.hit_blocks, self.hbm_blocks, self.dram_blocks, self.nvme_blocks, self.flash_blocks, 0
        )

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Found:
        """Reads a body."""
        hit, hbm, dram, nvme, flash, zero = reader.unpack("6I")
        _zero(zero)
        return cls(ticket, hit, hbm, dram, nvme, flash)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Blocks ``first`` up to ``end`` of the chain are in their places and were verified; ``size`` bytes of them."""

    KIND: ClassVar[Kind] = Kind.LOADED
    ticket: int
    first: int
    end: int
    size: int = 0
    nanoseconds: int = 0

    def body(self) -> bytes:
        """Its body."""
        return struct.pack("<IIQQ", self.first, self.end, self.size, self.nanoseconds)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Loaded:
        """Reads a body."""
        first, end, count, nanoseconds = reader.unpack("IIQQ")
        if end < first:
            raise ProtocolError(f"blocks {first} to {end}")
        return cls(ticket, first, end, count, nanoseconds)


@dataclass(frozen=True, slots=True)
class Saved:
    """Which of the offered blocks are kept: bit i of ``kept``, the lowest first; ``size`` bytes of them."""

    KIND: ClassVar[Kind] = Kind.SAVED
    ticket: int
    count: int
    kept: int = 0
    size: int = 0
    nanoseconds: int = 0

    def body(self) -> bytes:
        """Its body."""
        bitmap = self.kept.to_bytes((self.count + 63) // 64 * 8, "little")
        return struct.pack("<IIQQ", self.count, 0, self.size, self.nanoseconds) + bitmap

    @classmethod
    def read(cls: type[_OfSaved], ticket: int, flags: int, reader: _Reader) -> _OfSaved:
        """Reads a body."""
        count, zero, size, nanoseconds = reader.unpack("IIQQ")
        _zero(zero)
        kept = int.from_bytes(reader.take((count + 63) // 64 * 8), "little")
        if kept >> count:
            raise ProtocolError("bits behind the last block")
        return cls(ticket, count, kept, size, nanoseconds)

    def is_kept(self, index: int) -> bool:
        """Whether offered block ``index`` is kept."""
        return bool(self.kept >> index & 1)


_OfSaved = TypeVar("_OfSaved", bound=Saved)


@dataclass(frozen=True, slots=True)
class Pinned:
    """Whether a pin was granted, and how many blocks it holds."""

    KIND: ClassVar[Kind] = Kind.PINNED
    ticket: int
    outcome: PinOutcome
    blocks: int = 0

    def body(self) -> bytes:
        """Its body."""
        return struct.pack("<II", self.outcome, self.blocks)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Pinned:
        """Reads a body."""
        outcome, blocks = reader.unpack("II")
        return cls(ticket, PinOutcome(outcome), blocks)


@dataclass(frozen=True, slots=True)
class Name:
    """An object: one shard of one group of layers of one block."""

    key: bytes
    group: int = 0
    shard: int = 0
    shards: int = 1


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
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Changed:
        """Reads a body."""
        added, removed = reader.unpack("II")
        joined = reader.take(40 * (added + removed))
        names = []
        for key, group, shard, shards, zero in struct.iter_unpack("<32s4H", joined):
            _zero(zero)
            names.append(Name(key, group, shard, shards))
        return cls(tuple(names[:added]), tuple(names[added:]), bool(flags & 1))


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers by name."""

    KIND: ClassVar[Kind] = Kind.STATISTICS
    ticket: int
    values: Mapping[str, int] = field(default_factory=dict)

    def body(self) -> bytes:
        """Its body."""
        parts = [_text(name) + struct.pack("<Q", value) for name, value in self.values.items()]
        return struct.pack("<I", len(parts)) + b"".join(parts)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Statistics:
        """Reads a body."""
        (count,) = reader.unpack("I")
        values: dict[str, int] = {}
        for _ in range(count):
            name = reader.text()
            (values[name],) = reader.unpack("Q")
        return cls(ticket, values)


@dataclass(frozen=True, slots=True)
class Farewell:
    """The agent is about to stop."""

    KIND: ClassVar[Kind] = Kind.FAREWELL
    reason: str = ""
    ticket: int = 0

    def body(self) -> bytes:
        """Its body."""
        return _text(self.reason, 16_384)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Farewell:
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
        return struct.pack("<H", self.code) + _text(self.reason, 16_384)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Refused:
        """Reads a body."""
        (code,) = reader.unpack("H")
        return cls(ticket, Refusal(code), reader.text(16_384))


@dataclass(frozen=True, slots=True)
class Loan:
    """A lease or a reservation: which of the loan words, and what stands there while it is in force. None: (0, 0)."""

    number: int = 0
    generation: int = 0

    def encode(self) -> bytes:
        """Its bytes."""
        return struct.pack("<IIQ", self.number, 0, self.generation)

    @classmethod
    def decode(cls, reader: _Reader) -> Loan:
        """Reads one."""
        number, zero, generation = reader.unpack("IIQ")
        _zero(zero)
        return cls(number, generation)


@dataclass(frozen=True, slots=True)
class Arena:
    """The engine wants to map the agent's arena."""

    KIND: ClassVar[Kind] = Kind.ARENA
    writable: bool = False
    ticket: int = 0

    def body(self) -> bytes:
        """Its body."""
        return struct.pack("<Q", int(self.writable))

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Arena:
        """Reads a body."""
        (access,) = reader.unpack("Q")
        if access > 1:
            raise ProtocolError(f"access {access}")
        return cls(bool(access))


@dataclass(frozen=True, slots=True)
class ArenaOpened:
    """How the arena looks; its descriptor and that of the loan words travel with it."""

    KIND: ClassVar[Kind] = Kind.ARENA_OPENED
    slot_bytes: int
    length: int
    slots: int
    loans: int
    lifetime_max: int
    writable: bool = False
    ticket: int = 0

    def body(self) -> bytes:
        """Its body."""
        return struct.pack(
            "<QQIIQQ", self.slot_bytes, self.length, self.slots, self.loans, self.lifetime_max, int(self.writable)
        )

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> ArenaOpened:
        """Reads a body."""
        slot_bytes, length, slots, loans, lifetime, access = reader.unpack("QQIIQQ")
        if access > 1 or not 0 < slot_bytes <= length or slots * slot_bytes > length:
            raise ProtocolError(f"an arena of {slots} slots of {slot_bytes} bytes in {length}")
        return cls(slot_bytes, length, slots, loans, lifetime, bool(access))


@dataclass(frozen=True, slots=True)
class Take:
    """Blocks that the engine wants to read where they lie. An empty chain: that of the request's look-up."""

    KIND: ClassVar[Kind] = Kind.TAKE
    ticket: int
    chain: AnyChain
    first: int
    blocks: int
    request: int = 0
    verify: bool = True
    compute_wait: int = 0
    deadline: int = 0
    lifetime: int = 0

    def body(self) -> bytes:
        """Its body."""
        head = struct.pack(
            "<QIIQQQQ", self.request, self.first, self.blocks, int(self.verify), self.compute_wait, self.deadline,
            self.lifetime,
        )  # fmt: skip
        return head + self.chain.encode()

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Take:
        """Reads a body."""
        request, first, blocks, verify, wait, deadline, lifetime = reader.unpack("QIIQQQQ")
        if verify > 1 or not 1 <= blocks <= KEYS_MAX:
            raise ProtocolError(f"a take of {blocks} blocks with flags {verify}")
        chain = Chain.decode(reader, least=0 if request else 1)
        if chain.keys and first >= len(chain.keys):
            raise ProtocolError(f"block {first} of a chain of {len(chain.keys)}")
        return cls(ticket, chain, first, blocks, request, bool(verify), wait, deadline, lifetime)


@dataclass(frozen=True, slots=True)
class Taken:
    """Blocks that may be read where they lie: each (slot, checksum), the first at position ``first`` of the chain."""

    KIND: ClassVar[Kind] = Kind.TAKEN
    ticket: int
    first: int
    loan: Loan = Loan()
    nanoseconds: int = 0
    blocks: tuple[tuple[int, int], ...] = ()

    def body(self) -> bytes:
        """Its body."""
        head = struct.pack("<II", self.first, len(self.blocks)) + self.loan.encode()
        head += struct.pack("<Q", self.nanoseconds)
        return head + b"".join(struct.pack("<IIQ", slot, 0, checksum) for slot, checksum in self.blocks)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Taken:
        """Reads a body."""
        first, count = reader.unpack("II")
        if count > KEYS_MAX:
            raise ProtocolError(f"{count} blocks, more than {KEYS_MAX}")
        loan = Loan.decode(reader)
        (nanoseconds,) = reader.unpack("Q")
        blocks = []
        for slot, zero, checksum in struct.iter_unpack("<IIQ", reader.take(16 * count)):
            _zero(zero)
            blocks.append((slot, checksum))
        return cls(ticket, first, loan, nanoseconds, tuple(blocks))


@dataclass(frozen=True, slots=True)
class Reserve:
    """Empty slots that the engine wants to write into."""

    KIND: ClassVar[Kind] = Kind.RESERVE
    ticket: int
    slots: int
    lifetime: int = 0

    def body(self) -> bytes:
        """Its body."""
        return struct.pack("<IIQ", self.slots, 0, self.lifetime)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Reserve:
        """Reads a body."""
        slots, zero, lifetime = reader.unpack("IIQ")
        _zero(zero)
        if not 1 <= slots <= KEYS_MAX:
            raise ProtocolError(f"a reservation of {slots} slots")
        return cls(ticket, slots, lifetime)


@dataclass(frozen=True, slots=True)
class Reserved:
    """Slots that the engine may write into."""

    KIND: ClassVar[Kind] = Kind.RESERVED
    ticket: int
    loan: Loan = Loan()
    nanoseconds: int = 0
    slots: tuple[int, ...] = ()

    def body(self) -> bytes:
        """Its body."""
        head = struct.pack("<II", len(self.slots), 0) + self.loan.encode() + struct.pack("<Q", self.nanoseconds)
        return head + struct.pack(f"<{len(self.slots)}I", *self.slots)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Reserved:
        """Reads a body."""
        count, zero = reader.unpack("II")
        _zero(zero)
        if count > KEYS_MAX:
            raise ProtocolError(f"{count} slots, more than {KEYS_MAX}")
        loan = Loan.decode(reader)
        (nanoseconds,) = reader.unpack("Q")
        return cls(ticket, loan, nanoseconds, reader.unpack(f"{count}I"))


@dataclass(frozen=True, slots=True)
class Commit:
    """Reserved slots are full: they are the last blocks of the chain from now on."""

    KIND: ClassVar[Kind] = Kind.COMMIT
    ticket: int
    chain: AnyChain
    first: int
    loan: Loan
    slots: tuple[int, ...]
    request: int = 0
    eviction_class: int = 0

    def body(self) -> bytes:
        """Its body."""
        head = struct.pack("<QIB3x", self.request, self.first, self.eviction_class) + self.loan.encode()
        return head + self.chain.encode() + struct.pack(f"<{len(self.slots)}I", *self.slots)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Commit:
        """Reads a body."""
        request, first, eviction_class, *zeros = reader.unpack("QIBBBB")
        _zero(*zeros)
        loan, chain = Loan.decode(reader), Chain.decode(reader)
        if first >= len(chain.keys):
            raise ProtocolError(f"block {first} of a chain of {len(chain.keys)}")
        slots = reader.unpack(f"{len(chain.keys) - first}I")
        return cls(ticket, chain, first, loan, slots, request, eviction_class)


class Committed(Saved):
    """Which of the committed blocks are kept; the slots are the agent's again."""

    KIND: ClassVar[Kind] = Kind.COMMITTED
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Release:
    """A lease or a reservation is given back."""

    KIND: ClassVar[Kind] = Kind.RELEASE
    ticket: int
    loan: Loan

    def body(self) -> bytes:
        """Its body."""
        return self.loan.encode()

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Release:
        """Reads a body."""
        return cls(ticket, Loan.decode(reader))


@dataclass(frozen=True, slots=True)
class Released:
    """A loan is over; ``was_in_force``: it was until now."""

    KIND: ClassVar[Kind] = Kind.RELEASED
    ticket: int
    was_in_force: bool = True

    def body(self) -> bytes:
        """Its body."""
        return struct.pack("<Q", int(not self.was_in_force))

    @classmethod
    def read(cls, ticket: int, flags: int, reader: _Reader) -> Released:
        """Reads a body."""
        (outcome,) = reader.unpack("Q")
        if outcome > 1:
            raise ProtocolError(f"outcome {outcome}")
        return cls(ticket, not outcome)


Frame: TypeAlias = (
    Hello | Welcome | RegionAdd | RegionDrop | RegionAdded | RegionDropped | LookUp | Load | Save | Finished | Prefetch
    | Touch | Pin | Ping | Pong | Found | Loaded | Saved | Pinned | Changed | Statistics | Farewell | Refused | Cancel
    | Cancelled | Unpin | Subscribe | Stats | Goodbye | Arena | ArenaOpened | Take | Taken | Reserve | Reserved | Commit
    | Committed | Release | Released
)  # fmt: skip

_FRAMES: tuple[type[Frame], ...] = (
    Hello, Welcome, RegionAdd, RegionDrop, RegionAdded, RegionDropped, LookUp, Load, Save, Finished, Prefetch, Touch,
    Pin, Ping, Pong, Found, Loaded, Saved, Pinned, Changed, Statistics, Farewell, Refused, Cancel, Cancelled, Unpin,
    Subscribe, Stats, Goodbye, Arena, ArenaOpened, Take, Taken, Reserve, Reserved, Commit, Committed, Release,
    Released,
)  # fmt: skip
_READERS: dict[int, Callable[[int, int, _Reader], Frame]] = {frame.KIND: frame.read for frame in _FRAMES}


def encode(frame: Frame) -> bytes:
    """A frame's bytes, header and body."""
    body = frame.body()
    if len(body) > BODY_BYTES_MAX:
        raise ProtocolError(f"a body of {len(body)} bytes, more than {BODY_BYTES_MAX}")
    flags = 1 if isinstance(frame, Changed) and frame.has_gap else 0
    return HEADER.pack(len(body), frame.KIND, flags, VERSION, frame.ticket) + body


def body_bytes(header: bytes | memoryview) -> int:
    """Bytes of the body behind a header of 16 bytes."""
    length, kind, _, version, _ = HEADER.unpack(header)
    if version != VERSION:
        raise ProtocolError(f"version {version} is not spoken here")
    if kind not in _READERS:
        raise ProtocolError(f"no frame has the type {kind:#x}")
    if length > BODY_BYTES_MAX:
        raise ProtocolError(f"a body of {length} bytes, more than {BODY_BYTES_MAX}")
    return int(length)


def decode(header: bytes, body: bytes) -> Frame:
    """A frame of its header and its body."""
    if body_bytes(header) != len(body):
        raise ProtocolError("a body of another length than its header says")
    _, kind, flags, _, ticket = HEADER.unpack(header)
    if flags & ~1 or (flags and kind != Kind.CHANGED):
        raise ProtocolError("flags must be zero")
    reader = _Reader(body)
    try:
        frame = _READERS[kind](ticket, flags, reader)
    except ProtocolError:
        raise
    except ValueError as error:
        raise ProtocolError(str(error)) from None
    reader.end()
    return frame


class Splitter:
    """Cuts what a stream brings into frames."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that became whole."""
        waiting = self._waiting
        waiting += data
        frames: list[Frame] = []
        at = 0
        while len(waiting) - at >= HEADER_BYTES:
            header = bytes(waiting[at : at + HEADER_BYTES])
            end = at + HEADER_BYTES + body_bytes(header)
            if end > len(waiting):
                break
            frames.append(decode(header, bytes(waiting[at + HEADER_BYTES : end])))
            at = end
        del waiting[:at]
        return frames


def chain_of(keys: Sequence[bytes], group: int = 0, shard: int = 0, shards: int = 1) -> Chain:
    """A chain of keys."""
    return Chain(tuple(keys), group, shard, shards)
