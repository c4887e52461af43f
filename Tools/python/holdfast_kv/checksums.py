"""The checksums of the store's protocol, in Python alone: for tools and tests, not for serving."""

from __future__ import annotations

import struct


def _table(polynomial: int) -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (polynomial if byte & 1 else 0)
        table.append(byte)
    return table


def _slices(polynomial: int, count: int) -> list[list[int]]:
    """Tables for ``count`` bytes at a time: table k is the remainder of a byte with k zeros behind it."""
    tables = [_table(polynomial)]
    for _ in range(1, count):
        tables.append([value >> 8 ^ tables[0][value & 255] for value in tables[-1]])
    return tables


_CRC32C = _table(0x82F63B78)
_CRC64 = _slices(0xC96C5795D7870F42, 8)


def crc32c(data: bytes) -> int:
    """CRC-32/ISCSI."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRC32C[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFF


def crc64(data: bytes, before: int = 0) -> int:
    """CRC-64/XZ; ``before`` is the checksum of what comes before ``data``. About 10 MB/s: for tools, not for serving."""
    value = before ^ 0xFFFFFFFFFFFFFFFF
    t0, t1, t2, t3, t4, t5, t6, t7 = _CRC64
    whole = len(data) // 8
    for (word,) in struct.iter_unpack("<Q", data[: 8 * whole]):
        value ^= word
        value = (
            t7[value & 255] ^ t6[value >> 8 & 255] ^ t5[value >> 16 & 255] ^ t4[value >> 24 & 255]
            ^ t3[value >> 32 & 255] ^ t2[value >> 40 & 255] ^ t1[value >> 48 & 255] ^ t0[value >> 56]
        )  # fmt: skip
    for byte in data[8 * whole :]:
        value = value >> 8 ^ t0[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFFFFFFFFFF
