"""What frames name: blocks by chains of keys, their places by slices of regions, loans by their words."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from .fields import KEY_BYTES, KEYS_MAX, SEGMENTS_MAX, SLICES_MAX, ProtocolError, Reader, must_be_zero


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
    def decode(cls, reader: Reader, *, least: int = 1) -> Chain:
        """Reads one; ``least`` keys must be there."""
        count, group, shard, shards, zero = reader.unpack("IHHHH")
        must_be_zero(zero)
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
    def decode(cls, reader: Reader) -> Places:
        """Reads one."""
        blocks, segments, zero = reader.unpack("IHH")
        must_be_zero(zero)
        if not (1 <= blocks <= KEYS_MAX and 1 <= segments <= SEGMENTS_MAX and blocks * segments <= SLICES_MAX):
            raise ProtocolError(f"{blocks} blocks of {segments} slices")
        return cls(blocks, segments, reader.take(16 * blocks * segments))


@dataclass(frozen=True, slots=True)
class Name:
    """An object: one shard of one group of layers of one block."""

    key: bytes
    group: int = 0
    shard: int = 0
    shards: int = 1


@dataclass(frozen=True, slots=True)
class Loan:
    """A lease or a reservation: which of the loan words, and what stands there while it is in force. None: (0, 0)."""

    number: int = 0
    generation: int = 0

    def encode(self) -> bytes:
        """Its bytes."""
        return struct.pack("<IIQ", self.number, 0, self.generation)

    @classmethod
    def decode(cls, reader: Reader) -> Loan:
        """Reads one."""
        number, zero, generation = reader.unpack("IIQ")
        must_be_zero(zero)
        return cls(number, generation)


NO_LOAN: Final = Loan()
"""What stands where nothing is lent."""
