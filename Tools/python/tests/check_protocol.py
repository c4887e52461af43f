"""Checks the frames that Swift checks, too."""

import json
import sys
from pathlib import Path
from typing import Any

here = Path(__file__).resolve()
sys.path.insert(0, str(here.parents[1]))

from holdfast_kv import protocol as p  # noqa: E402


def value(name: str, plain: Any) -> Any:
    """A field of the file as the frame holds it."""
    if name == "chain":
        return p.Chain(tuple(map(bytes.fromhex, plain["keys"])), plain["group"], plain["shard"], plain["shards"])
    if name == "places":
        return p.Places.of([(region, offset, length) for region, offset, length in plain["slices"]], plain["segments"])
    if name == "loan":
        return p.Loan(plain["number"], plain["generation"])
    if name == "blocks" and isinstance(plain, list):
        return tuple((slot, checksum) for slot, checksum in plain)
    if name == "slots" and isinstance(plain, list):
        return tuple(plain)
    if name in ("added", "removed"):
        return tuple(p.Name(bytes.fromhex(n["key"]), n["group"], n["shard"], n["shards"]) for n in plain)
    return bytes.fromhex(plain) if name in ("digest", "payload") else plain


vectors = json.loads((here.parents[3] / "Tests/KVAgentTests/engine-protocol-vectors.json").read_text())
for vector in vectors["frames"]:
    frame = getattr(p, vector["frame"])(**{name: value(name, plain) for name, plain in vector["fields"].items()})
    data = bytes.fromhex(vector["bytes"])
    assert p.encode(frame) == data, vector["name"]
    assert p.decode(data[:16], data[16:]) == frame, vector["name"]
    for cut in range(16, len(data)):
        if vector["name"] in ("ping", "pong"):
            continue
        short = len(data[16:cut]).to_bytes(4, "little") + data[4:cut]
        try:
            p.decode(short[:16], short[16:])
        except p.ProtocolError:
            continue
        raise AssertionError(f"{vector['name']} cut to {cut} bytes is taken")
print(f"{len(vectors['frames'])} frames agree")
