"""Frames of the hand-over: the agent's arena, mapped by a host-owned engine, and what is lent of it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from .blocks import Saved
from .chains import NO_LOAN, AnyChain, Chain, Loan
from .fields import KEYS_MAX, Kind, ProtocolError, Reader, must_be_zero


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
    def read(cls, ticket: int, flags: int, reader: Reader) -> Arena:
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
    #: What the slots lie in: 0 node memory, 1 a device that stands in for a GPU, 2 a GPU's memory.
    memory: int = 0
    ticket: int = 0

    def body(self) -> bytes:
        """Its body."""
        access = int(self.writable) | self.memory << 8
        return struct.pack("<QQIIQQ", self.slot_bytes, self.length, self.slots, self.loans, self.lifetime_max, access)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> ArenaOpened:
        """Reads a body."""
        slot_bytes, length, slots, loans, lifetime, access = reader.unpack("QQIIQQ")
        memory = access >> 8
        if access & 0xFF > 1 or memory > 2 or not 0 < slot_bytes <= length or slots * slot_bytes > length:
            raise ProtocolError(f"an arena of {slots} slots of {slot_bytes} bytes in {length}")
        return cls(slot_bytes, length, slots, loans, lifetime, bool(access & 1), memory)


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
    #: The connection that looked the request up, by its number; 0: this one.
    asker: int = 0

    def body(self) -> bytes:
        """Its body."""
        head = struct.pack(
            "<QIIBxHxxxxQQQ", self.request, self.first, self.blocks, int(self.verify), self.asker, self.compute_wait,
            self.deadline, self.lifetime,
        )  # fmt: skip
        return head + self.chain.encode()

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> Take:
        """Reads a body."""
        request, first, blocks, verify, zero, asker, rest, wait, deadline, lifetime = reader.unpack("QIIBBHIQQQ")
        must_be_zero(zero | rest)
        if verify > 1 or not 1 <= blocks <= KEYS_MAX:
            raise ProtocolError(f"a take of {blocks} blocks with flags {verify}")
        chain = Chain.decode(reader, least=0 if request else 1)
        if chain.keys and first >= len(chain.keys):
            raise ProtocolError(f"block {first} of a chain of {len(chain.keys)}")
        return cls(ticket, chain, first, blocks, request, bool(verify), wait, deadline, lifetime, asker)


@dataclass(frozen=True, slots=True)
class Taken:
    """Blocks that may be read where they lie: each (slot, checksum), the first at position ``first`` of the chain.

    A checksum that nobody has taken so far is None: of what an engine wrote on a device.
    """

    KIND: ClassVar[Kind] = Kind.TAKEN
    ticket: int
    first: int
    loan: Loan = NO_LOAN
    nanoseconds: int = 0
    blocks: tuple[tuple[int, int | None], ...] = ()

    def body(self) -> bytes:
        """Its body."""
        head = struct.pack("<II", self.first, len(self.blocks)) + self.loan.encode()
        head += struct.pack("<Q", self.nanoseconds)
        return head + b"".join(
            struct.pack("<IIQ", slot, int(checksum is None), checksum or 0) for slot, checksum in self.blocks
        )

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> Taken:
        """Reads a body."""
        first, count = reader.unpack("II")
        if count > KEYS_MAX:
            raise ProtocolError(f"{count} blocks, more than {KEYS_MAX}")
        loan = Loan.decode(reader)
        (nanoseconds,) = reader.unpack("Q")
        blocks: list[tuple[int, int | None]] = []
        for slot, lacks_checksum, checksum in struct.iter_unpack("<IIQ", reader.take(16 * count)):
            must_be_zero(lacks_checksum >> 1)
            blocks.append((slot, None if lacks_checksum else checksum))
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
    def read(cls, ticket: int, flags: int, reader: Reader) -> Reserve:
        """Reads a body."""
        slots, zero, lifetime = reader.unpack("IIQ")
        must_be_zero(zero)
        if not 1 <= slots <= KEYS_MAX:
            raise ProtocolError(f"a reservation of {slots} slots")
        return cls(ticket, slots, lifetime)


@dataclass(frozen=True, slots=True)
class Reserved:
    """Slots that the engine may write into."""

    KIND: ClassVar[Kind] = Kind.RESERVED
    ticket: int
    loan: Loan = NO_LOAN
    nanoseconds: int = 0
    slots: tuple[int, ...] = ()

    def body(self) -> bytes:
        """Its body."""
        head = struct.pack("<II", len(self.slots), 0) + self.loan.encode() + struct.pack("<Q", self.nanoseconds)
        return head + struct.pack(f"<{len(self.slots)}I", *self.slots)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> Reserved:
        """Reads a body."""
        count, zero = reader.unpack("II")
        must_be_zero(zero)
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
    asker: int = 0

    def body(self) -> bytes:
        """Its body."""
        head = struct.pack("<QIBxH", self.request, self.first, self.eviction_class, self.asker) + self.loan.encode()
        return head + self.chain.encode() + struct.pack(f"<{len(self.slots)}I", *self.slots)

    @classmethod
    def read(cls, ticket: int, flags: int, reader: Reader) -> Commit:
        """Reads a body."""
        request, first, eviction_class, zero, asker = reader.unpack("QIBBH")
        must_be_zero(zero)
        loan, chain = Loan.decode(reader), Chain.decode(reader)
        if first >= len(chain.keys):
            raise ProtocolError(f"block {first} of a chain of {len(chain.keys)}")
        slots = reader.unpack(f"{len(chain.keys) - first}I")
        return cls(ticket, chain, first, loan, slots, request, eviction_class, asker)


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
    def read(cls, ticket: int, flags: int, reader: Reader) -> Release:
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
    def read(cls, ticket: int, flags: int, reader: Reader) -> Released:
        """Reads a body."""
        (outcome,) = reader.unpack("Q")
        if outcome > 1:
            raise ProtocolError(f"outcome {outcome}")
        return cls(ticket, not outcome)


LoanFrame: TypeAlias = (
    Arena | ArenaOpened | Take | Taken | Reserve | Reserved | Commit | Committed | Release | Released
)  # fmt: skip
"""Any frame about loans."""
