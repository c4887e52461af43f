"""Frames about blocks: look-ups, loads and saves through the engine's regions, hints and pins."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, TypeAlias, TypeVar

from .chains import AnyChain, Chain, Places
from .fields import Bare, Kind, PinOutcome, ProtocolError, Reader, StopReason, must_be_zero


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
    def read(cls, ticket: int, flags: int, reader: Reader) -> LookUp:
        """Reads a body."""
        tokens, blocks, session, turn, zero = reader.unpack("IIQiI")
        must_be_zero(zero)
        return cls(ticket, Chain.decode(reader), tokens, blocks, session, turn)


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
        return struct.pack("<6I", self.hit_blocks, self.hbm_blocks, self.dram_blocks, self.nvme_blocks, self.flash_blocks, 0)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> Found:
        """Reads a body."""
        hit, hbm, dram, nvme, flash, zero = reader.unpack("6I")
        must_be_zero(zero)
        return cls(ticket, hit, hbm, dram, nvme, flash)


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
    #: The connection that looked the request up, by its number; 0: this one.
    asker: int = 0

    def body(self) -> bytes:
        """Its body."""
        head = struct.pack("<QIxxHQQ", self.request, self.first, self.asker, self.compute_wait, self.deadline)
        return head + self.chain.encode() + self.places.encode()

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> Load:
        """Reads a body."""
        request, first, zero, asker, wait, deadline = reader.unpack("QIHHQQ")
        must_be_zero(zero)
        chain = Chain.decode(reader, least=0 if request else 1)
        places = Places.decode(reader)
        if chain.keys and first + places.blocks > len(chain.keys):
            raise ProtocolError(f"blocks {first} to {first + places.blocks} of a chain of {len(chain.keys)}")
        return cls(ticket, chain, first, places, request, wait, deadline, asker)


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
    def read(cls, ticket: int, flags: int, reader: Reader) -> Loaded:
        """Reads a body."""
        first, end, count, nanoseconds = reader.unpack("IIQQ")
        if end < first:
            raise ProtocolError(f"blocks {first} to {end}")
        return cls(ticket, first, end, count, nanoseconds)


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
    asker: int = 0

    def body(self) -> bytes:
        """Its body."""
        head = struct.pack("<QIBxH", self.request, self.first, self.eviction_class, self.asker)
        return head + self.chain.encode() + self.places.encode()

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> Save:
        """Reads a body."""
        request, first, eviction_class, zero, asker = reader.unpack("QIBBH")
        must_be_zero(zero)
        chain, places = Chain.decode(reader), Places.decode(reader)
        if first + places.blocks != len(chain.keys):
            raise ProtocolError(f"blocks {first} to {first + places.blocks} of a chain of {len(chain.keys)}")
        return cls(ticket, chain, first, places, request, eviction_class, asker)


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
    def read(cls: type[_OfSaved], ticket: int, flags: int, reader: Reader) -> _OfSaved:
        """Reads a body."""
        count, zero, size, nanoseconds = reader.unpack("IIQQ")
        must_be_zero(zero)
        kept = int.from_bytes(reader.take((count + 63) // 64 * 8), "little")
        if kept >> count:
            raise ProtocolError("bits behind the last block")
        return cls(ticket, count, kept, size, nanoseconds)

    def is_kept(self, index: int) -> bool:
        """Whether offered block ``index`` is kept."""
        return bool(self.kept >> index & 1)


_OfSaved = TypeVar("_OfSaved", bound=Saved)


class Cancel(Bare):
    """Ends a job or a request."""

    KIND: ClassVar[Kind] = Kind.CANCEL
    __slots__ = ()


class Cancelled(Bare):
    """Nothing touches the places any more."""

    KIND: ClassVar[Kind] = Kind.CANCELLED
    __slots__ = ()


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
    def read(cls, ticket: int, flags: int, reader: Reader) -> Finished:
        """Reads a body."""
        reason, cached, first, resumes, answer, zero = reader.unpack("IiQQII")
        must_be_zero(zero)
        return cls(ticket, StopReason(reason), cached, first, resumes, answer)


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
    def read(cls, ticket: int, flags: int, reader: Reader) -> Prefetch:
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
    def read(cls, ticket: int, flags: int, reader: Reader) -> Touch:
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
    def read(cls, ticket: int, flags: int, reader: Reader) -> Pin:
        """Reads a body."""
        (lifetime,) = reader.unpack("Q")
        return cls(ticket, Chain.decode(reader), lifetime)


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
    def read(cls, ticket: int, flags: int, reader: Reader) -> Pinned:
        """Reads a body."""
        outcome, blocks = reader.unpack("II")
        return cls(ticket, PinOutcome(outcome), blocks)


class Unpin(Bare):
    """Takes a pin back."""

    KIND: ClassVar[Kind] = Kind.UNPIN
    __slots__ = ()


BlockFrame: TypeAlias = (
    LookUp | Found | Load | Loaded | Save | Saved | Cancel | Cancelled | Finished | Prefetch | Touch | Pin | Pinned
    | Unpin
)  # fmt: skip
"""Any frame about blocks."""
