"""Golden bytes of events in both encodings."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from holdfast_kv.events import Cleared, Removed, Stored, encode

HASH = bytes(range(32))


def text(value: str) -> bytes:
    return bytes([0xA0 | len(value)]) + value.encode()


class EventsTest(unittest.TestCase):
    def body(self, event: object, encoding: str) -> bytes:
        payload = encode([event], at=1.0, rank=None, encoding=encoding)  # type: ignore[list-item, arg-type]
        self.assertEqual(payload[:11], bytes.fromhex("93cb3ff000000000000091"))
        self.assertEqual(payload[-1:], b"\xc0")
        return payload[11:-1]

    def test_removed_as_a_map_is_what_vllm_writes(self) -> None:
        expected = b"\x83" + text("type") + text("BlockRemoved") + text("block_hashes") + b"\x91\xc4\x20" + HASH
        expected += text("medium") + text("CPU")
        self.assertEqual(self.body(Removed([HASH], "CPU"), "map"), expected)

    def test_cleared(self) -> None:
        self.assertEqual(self.body(Cleared(), "map"), b"\x81" + text("type") + b"\xb0AllBlocksCleared")
        self.assertEqual(self.body(Cleared(), "array"), b"\x91\xb0AllBlocksCleared")

    def test_arrays_give_every_field_its_place(self) -> None:
        expected = b"\x93" + text("BlockRemoved") + b"\x91\xcf" + (2**63 + 5).to_bytes(8, "big") + text("STORAGE")
        self.assertEqual(self.body(Removed([2**63 + 5]), "array"), expected)
        stored = Stored([HASH], None, [1, 200, 70_000], 3, group_idx=0)
        expected = (
            b"\x9c" + text("BlockStored") + b"\x91\xc4\x20" + HASH + b"\xc0\x93\x01\xcc\xc8\xce\x00\x01\x11\x70\x03"
        )
        expected += b"\xc0" + text("STORAGE") + b"\xc0\xc0\x00\xc0\xc0"
        self.assertEqual(self.body(stored, "array"), expected)

    def test_maps_leave_defaults_out(self) -> None:
        stored = Stored([HASH], HASH, [1], 1, locality="LOCAL")
        body = self.body(stored, "map")
        self.assertEqual(body[0], 0x80 | 9)
        self.assertTrue(body.endswith(text("locality") + text("LOCAL")))
        self.assertNotIn(b"group_idx", body)

    def test_numbers_of_every_width(self) -> None:
        hashes = [
            0,
            127,
            128,
            255,
            256,
            65535,
            65536,
            2**32 - 1,
            2**32,
            2**64 - 1,
            -1,
            -32,
            -33,
            -129,
            -32769,
            -(2**63),
        ]
        body = self.body(Removed(hashes), "array")
        expected = "dc0010 00 7f cc80 ccff cd0100 cdffff ce00010000 ceffffffff cf0000000100000000 cfffffffffffffffff"
        expected += "ff e0 d0df d1ff7f d2ffff7fff d38000000000000000"
        self.assertIn(bytes.fromhex(expected.replace(" ", "")), body)
        with self.assertRaises(OverflowError):
            encode([Removed([2**64])], at=0.0)


if __name__ == "__main__":
    unittest.main()
