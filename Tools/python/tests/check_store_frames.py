"""Checks the frames that Swift checks, too: requests are written, everything else is read."""

import json
import struct
import sys
from pathlib import Path

here = Path(__file__).resolve()
sys.path.insert(0, str(here.parents[1]))

from holdfast_kv import store_frames as wire  # noqa: E402
from holdfast_kv.store_frames import Header, Metadata, ObjectName, Operation, Status  # noqa: E402

vectors = json.loads((here.parents[3] / "Tests/KVTransportTests/frame-vectors.json").read_text())["frames"]
operations = {"".join(word.capitalize() for word in each.name.split("_")): each for each in Operation}


def operation(what: str) -> Operation:
    return operations[what[0].upper() + what[1:]]


def name(fields: dict) -> ObjectName:
    return ObjectName(bytes.fromhex(fields["key"]), fields["group"], fields["shard"], fields["shards"])


def metadata(fields: dict) -> Metadata:
    return Metadata(bytes.fromhex(fields["parent"]), fields["session"], fields["index"], fields["class"])


def slot(fields: dict) -> bytes:
    # The client of this package names no memory; the vectors of RDMA do.
    return struct.pack("<QII", fields["address"], fields["key"], fields["bytes"])


def request_body(what: str, f: dict) -> bytes:
    match what:
        case "openNamespace":
            return wire.text(f["name"])
        case "lookUp" | "delete":
            return wire.names([name(each) for each in f["names"]])
        case "get":
            return wire.get_body(name(f["name"]), 0)[:-16] + slot(f["slot"])
        case "put":
            body = wire.put_body(name(f["name"]), metadata(f["metadata"]), int(f["checksum"], 16), 0)
            return body[:-16] + slot(f["slot"])
        case "pin":
            return wire.pin_body(f["seconds"], f["owner"], [name(each) for each in f["names"]])
        case "unpin":
            return wire.unpin_body(f["owner"], [name(each) for each in f["names"]])
        case "list":
            return wire.list_body(f["cursor"], f["count"])
        case "describe" | "reportCorrupt":
            return bytes(name(f["name"]))
        case "administer":
            return wire.administer_body(f["verb"], f["arguments"])
        case "cancel":
            return wire.cancel_body(f["target"])
        case "stat" | "subscribe":
            return b""
    raise AssertionError(f"no request `{what}`")


def check_reply(f: dict, value: object) -> None:
    match f["kind"]:
        case 0:
            assert value is None
        case 1:
            assert value == f["namespace"]
        case 2:
            assert value == [bool(int(word, 16) >> bit & 1) for word in f["words"] for bit in range(64)]
        case 3:
            assert value == wire.Object(f["payloadBytes"], int(f["checksum"], 16), metadata(f["metadata"]))
        case 4:
            assert value == [Status(each) for each in f["statuses"]]
        case 5:
            objects, following = value
            assert following == f["next"]
            for listed, each in zip(objects, f["objects"], strict=True):
                assert listed.name == name(each["name"]) and listed.payload_bytes == each["payloadBytes"]
                assert (listed.is_pinned, listed.is_restart_safe) == (bool(each["flags"] & 1), bool(each["flags"] & 2))
        case 6:
            assert value == f["text"]


def take(data: bytes) -> tuple[Header, bytes]:
    announced = wire.read_header(data[: wire.HEADER_BYTES])
    announced.verify(data[wire.HEADER_BYTES :])
    return announced.header, data[wire.HEADER_BYTES :]


bodies: dict[str, bytes] = {}
for vector in vectors:
    what, f, data = vector["what"], vector["fields"], bytes.fromhex(vector["frame"])
    payload = bytes.fromhex(vector.get("payload", ""))
    header, body = take(data)
    assert wire.frame(header, body) == data, what
    bodies.setdefault(what, body)
    if what == "reply":
        assert (header.is_reply, header.operation, header.number) == (True, operation(f["to"]), f["number"])
        assert (header.status, header.kind, header.is_in_slot) == (f["status"], f["kind"], f.get("isInSlot", False))
        check_reply(f, wire.read_reply(header, body))
    elif 0x10 <= header.operation <= 0x1D:
        expected = Header(
            operation(what),
            f["number"],
            f.get("namespace", 0),
            is_in_slot=f.get("isInSlot", False),
            payload_bytes=f.get("payloadBytes", 0),
        )
        assert wire.frame(expected, request_body(what, f)) == data, what
        if payload:
            assert name(f["name"]).checksum(payload) == int(f["checksum"], 16)
    else:
        assert header.operation == operation(what) and not header.is_reply
        if "names" in f:
            fields = wire.Body(body)
            assert fields.many(fields.name) == [name(each) for each in f["names"]]
            fields.end()
        if "text" in f:
            assert (body.decode(), header.status) == (f["text"], f.get("status", 0))

    # No bit of a frame can change without being noticed.
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            take(bytes(damaged))
        except wire.FrameError:
            continue
        raise AssertionError(f"{what} with bit {bit} flipped was taken")

hello = next(vector["fields"] for vector in vectors if vector["what"] == "hello")
welcome = next(vector["fields"] for vector in vectors if vector["what"] == "welcome")
key = bytes.fromhex(welcome["key"])
assert wire.hello(hello["tenant"], bytes.fromhex(hello["random"])) == bodies["hello"]
about = wire.transcript(bodies["hello"], bodies["challenge"])
assert wire.client_proof(key, about) == bodies["proof"]
grants = wire.read_welcome(key, about, bodies["welcome"])
assert grants == wire.Grants(
    welcome["credits"], welcome["session"], welcome["bodyBytesMax"], welcome["payloadBytesMax"]
)
for other in (bytes(16), key[1:]):
    try:
        wire.read_welcome(other, about, bodies["welcome"])
    except wire.FrameError:
        continue
    raise AssertionError("a store with another key was taken for the right one")
print(f"{len(vectors)} frames agree")
