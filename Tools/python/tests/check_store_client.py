"""Uses a running store as somebody would who knows only the protocol's page.

    check_store_client.py HOST:PORT TENANTS_FILE
"""

import hashlib
import random
import re
import socket
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from holdfast_kv import store_frames as wire  # noqa: E402
from holdfast_kv.checksums import crc64  # noqa: E402
from holdfast_kv.store_client import StoreClient, StoreError, StoreGone  # noqa: E402
from holdfast_kv.store_frames import Header, Metadata, ObjectName, Operation, Status  # noqa: E402

host, _, port = sys.argv[1].rpartition(":")
tenants = dict(re.findall(r"^(\w[\w-]*): *\{key: *([0-9a-f]+)", Path(sys.argv[2]).read_text(), re.MULTILINE))
key = bytes.fromhex(tenants["local"])
draw = random.Random(20)
checks = 0


def expect(condition: bool, what: str) -> None:
    global checks
    checks += 1
    if not condition:
        sys.exit(f"{what} does not hold")


def connect(tenant: str = "local", secret: bytes = key) -> StoreClient:
    return StoreClient(host, int(port), tenant, secret)


def refuses(status: Status, action, what: str) -> None:
    try:
        action()
    except StoreError as error:
        expect(error.status is status, f"{what}: {error}")
    else:
        expect(False, what)


def closes(*frames: bytes) -> None:
    """The store closes the connection of a session that sends this, and says nothing more."""
    with connect() as session:
        raw = session._socket
        raw.sendall(b"".join(frames))
        try:
            while data := raw.recv(4096):
                expect(wire.read_header(data[:32]).header.is_reply, "only replies come before the end")
        except ConnectionResetError:
            pass  # The store closed with bytes unread.
        expect(True, "the connection ends")


refuses(Status.FORBIDDEN, lambda: connect(secret=bytes(32)), "a wrong key is refused")
refuses(Status.FORBIDDEN, lambda: connect("nobody"), "an unknown tenant is refused")

blocks = [draw.randbytes(size) for size in (1, 7, 4096, 65_536, 200_001)]
names = [
    ObjectName(hashlib.sha256(bytes([index])).digest(), index, index % 3, 3) for index, _ in enumerate(blocks)
]
missing = ObjectName(hashlib.sha256(b"missing").digest())

with connect() as store, connect() as listener:
    expect(store.grants.credits >= 8 and store.grants.payload_bytes_max >= 65_536, "the store grants something")
    demo = store.open_namespace("python")
    expect(demo == 1 and store.open_namespace("python") == 1, "a handle is given once")
    refuses(Status.INVALID, lambda: store.look_up(demo + 1, names), "an unknown handle is refused")
    listener.subscribe(listener.open_namespace("python"))

    expect(store.look_up(demo, names) == [False] * len(names), "nothing is there yet")
    expect(store.get(demo, names[0]) is None, "a miss is a miss")
    parent = bytes(32)
    for index, (name, block) in enumerate(zip(names, blocks, strict=True)):
        metadata = Metadata(parent, session=42, index=index, eviction_class=index % 2)
        expect(store.put(demo, name, block, metadata), "a new object is stored")
        parent = name.key
    expect(not store.put(demo, names[2], blocks[2]), "the first writer wins")
    expect(store.look_up(demo, [*names, missing]) == [True] * len(names) + [False], "all are found, and no other")
    for index, (name, block) in enumerate(zip(names, blocks, strict=True)):
        found = store.get_with_metadata(demo, name)
        expect(found is not None and found[0] == block, "an object comes back as it went")
        expect(found is not None and found[1] == Metadata(index=index, eviction_class=index % 2), "so does its place")
    refuses(Status.INVALID, lambda: store.put(demo, missing, b""), "an object of no bytes is refused")

    # A payload that is not what its checksum says is not kept. The stream goes on behind it.
    body = wire.put_body(missing, Metadata(), missing.checksum(b"right"), 5)
    refuses(Status.CORRUPT, lambda: store._ask(Operation.PUT, body, demo, b"wrong"), "a damaged payload is refused")
    expect(store.look_up(demo, [missing]) == [False], "what came damaged is not there")

    # A slot that is too short is said to be so.
    short = wire.get_body(names[4], 200_000)
    refuses(Status.INVALID, lambda: store._ask(Operation.GET, short, demo), "a slot that is too short")
    store.cancel(12_345)
    expect(store.report_corrupt(demo, names[3]) is Status.OK, "a whole object is whole")
    expect(store.report_corrupt(demo, missing) is Status.ABSENT, "what is missing is not damaged")

    # Pins need a budget.
    policy = next(each["policy"] for each in store.namespaces() if each["name"] == "python")
    for budget, status in ((0, Status.OVER_BUDGET), (64 << 20, Status.OK)):
        changed = store.administer("namespace-set", namespace="python", policy={"pinQuotaBytes": budget})
        expect(changed["namespace"]["policy"] == policy | {"pinQuotaBytes": budget}, "what is not said stays")
        expect(changed["namespace"]["policy"]["pinQuotaBytes"] == budget, "a namespace's settings change")
        expect(store.pin(demo, names[2:3], "trial") == [status], f"with a budget of {budget} a pin is {status.name}")
    store.unpin(demo, names[2:3], "trial")
    pinned = store.pin(demo, [names[0], missing], "check", seconds=3600)
    expect(pinned == [Status.OK, Status.ABSENT], "what is there is pinned")
    expect([each["owner"] for each in store.pins()] == ["check"], "the pin is listed")
    expect(store.delete(demo, [names[0], names[1]]) == [Status.FORBIDDEN, Status.OK], "what is pinned stays")

    half = {name.key[:16] for name in names} - {names[1].key[:16]}
    for page in (1, 2, 1000):
        listed = list(store.list(demo, page))
        expect({each.name.key[:16] for each in listed} == half, f"pages of {page} list all")
        expect(all(each.name.key[16:] == bytes(16) for each in listed), "the second half of a listed key is zero")
        expect({each.name.key[:16] for each in listed if each.is_pinned} == {names[0].key[:16]}, "one is pinned")
        expect(all(each.is_restart_safe for each in listed), "all are restart-safe")
        expect(sum(each.payload_bytes for each in listed) == sum(map(len, blocks)) - 7, "lengths are told")
    empty = wire.list_body(0, 0)
    refuses(Status.INVALID, lambda: store._ask(Operation.LIST, empty, demo), "a page of no objects is refused")
    described = store.describe(demo, names[0])
    expect(described is not None and described["payloadBytes"] == 1, "one is described")
    expect(described["payloadChecksum"] == f"{crc64(blocks[0]):016x}", "by its payload's checksum, too")
    expect(store.get(demo, listed[0].name) in blocks, "a listed name can be got")
    expect(store.unpin(demo, [names[0]], "check") == [Status.OK], "a pin ends")
    expect(store.unpin(demo, [names[0]], "check") == [Status.ABSENT], "and has ended then")

    told = {Operation.ADDED: set(), Operation.REMOVED: set()}
    while len(told[Operation.ADDED]) < len(names) or not told[Operation.REMOVED]:
        notification = listener.wait(10)
        if notification is None:
            sys.exit(f"the subscriber heard only of {told}")
        told[notification.what] |= {name.key[:16] for name in notification.names}
    expect(told[Operation.ADDED] == half | {names[1].key[:16]}, "a subscriber hears of all that came")
    expect(told[Operation.REMOVED] == {names[1].key[:16]}, "and of what went")

    # Many requests under way: replies may come in any order.
    numbers = range(1000, 1000 + store.grants.credits)
    body = wire.names(names)
    store._socket.sendall(b"".join(wire.frame(Header(Operation.LOOK_UP, number, demo), body) for number in numbers))
    answered = {store._receive_frame(time.monotonic() + 10)[0].number for _ in numbers}
    expect(answered == set(numbers), "as many requests as credits are answered")

    refuses(Status.INVALID, lambda: store.administer("no-such-order"), "an unknown order is refused")
    expect(store.administer("progress")["damagedFound"] == 0, "nothing is damaged")
    store.delete(demo, names)

# What closes a connection, as the page says.
flipped = bytearray(wire.frame(Header(Operation.STAT, 1)))
flipped[9] ^= 1
closes(bytes(flipped))
closes(b"GET / HTTP/1.1\r\n\r\n" + bytes(32))
closes(wire.frame(Header(Operation.STAT, 1), b"x"))
closes(wire.frame(Header(Operation.STAT, 1, namespace=1)))
closes(wire.frame(Header(Operation.STAT, 1, is_reply=True)))
closes(wire.frame(Header(Operation.ADDED, namespace=1), wire.names([])))
closes(wire.frame(Header(Operation.PUT, 1, 1, payload_bytes=1 << 31), wire.put_body(missing, Metadata(), 0, 0)))
closes(wire.frame(Header(Operation.OPEN_NAMESPACE, 1), b"\x02\x00\xc3\x28"))
closes(wire.frame(Header(Operation.LOOK_UP, 1, 1), struct.pack("<I", 16_385) + bytes(40 * 16_385)))
for shard, shards in ((0, 0), (2, 2)):
    wrong = ObjectName(missing.key, 0, shard, shards)
    closes(wire.frame(Header(Operation.LOOK_UP, 1, 1), wire.names([wrong])))
    closes(wire.frame(Header(Operation.PUT, 1, 1, payload_bytes=1), wire.put_body(wrong, Metadata(), 0, 1)) + b"x")
# Two requests of one number: the first is a put whose payload has not come.
put = wire.frame(Header(Operation.PUT, 7, 1, payload_bytes=4), wire.put_body(missing, Metadata(), 0, 4))
with connect() as store:
    store.open_namespace("python")
    store._socket.sendall(put)
    store._socket.shutdown(socket.SHUT_WR)
    try:
        store._receive_frame(time.monotonic() + 10)
        expect(False, "a put without its payload is not answered")
    except StoreGone:
        expect(True, "a put that is cut off ends the session")

print(f"{checks} checks hold")
