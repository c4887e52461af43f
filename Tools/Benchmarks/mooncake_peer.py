"""Mooncake Store as a peer of the benchmarks: one process lends memory, another puts and gets over TCP.

lend RPC META   lends three gibibytes until it is ended
ask RPC META    reads lines `put|get BYTES DEPTH COUNT` and `look KEYS CALLS`, answers each with a line `> SECONDS`: of the
                whole, and of the median call
"""

import ctypes
import statistics
import sys
import time

from mooncake.store import MooncakeDistributedStore

role, rpc, meta = sys.argv[1:4]
store = MooncakeDistributedStore()
lent = 3 << 30 if role == "lend" else 0
metadata = f"http://127.0.0.1:{meta}/metadata"
for attempt in range(50):
    if store.setup("127.0.0.1", metadata, lent, 64 << 20, "tcp", "", f"127.0.0.1:{rpc}") == 0:
        break
    time.sleep(0.2)
else:
    sys.exit("no master")
if role == "lend":
    while True:
        time.sleep(60)

room = 256 << 20
buffer = ctypes.create_string_buffer(room)
address = ctypes.addressof(buffer)
assert store.register_buffer(address, room) == 0
# The lender may come a moment after the master.
for attempt in range(50):
    if store.put_from("probe", address, 4096) == 0:
        break
    time.sleep(0.2)
print("> ready", flush=True)
turns = {}


def look(count: int, calls: int) -> str:
    """Seconds of the median call that asks for so many keys, all of which are there."""
    names = [f"look-{number}" for number in range(count)]
    if store.is_exist(names[-1]) != 1:
        for name in names:
            store.put_from(name, address, 64)
    taken = []
    for _ in range(calls):
        begin = time.perf_counter()
        found = store.batch_is_exist(names)
        taken.append(time.perf_counter() - begin)
        if found != [1] * count:
            return "failed"
    return str(statistics.median(taken))


for line in sys.stdin:
    verb, *numbers = line.split()
    if verb == "look":
        print(f"> {look(*map(int, numbers))}", flush=True)
        continue
    size, depth, count = map(int, numbers)
    # A key is written once; each run of puts takes new ones and lets the former go.
    turn = turns.get(size, 0)
    if verb == "put":
        store.remove_by_regex(f"^{size}-{turn}-.*")
        turns[size] = turn = turn + 1
    names = [f"{size}-{turn}-{number}" for number in range(count)]
    begin = time.perf_counter()
    for first in range(0, count, depth):
        batch = names[first : first + depth]
        slots = [address + place * size for place in range(len(batch))]
        act = store.batch_put_from if verb == "put" else store.batch_get_into
        ends = act(batch, slots, [size] * len(batch))
        wanted = 0 if verb == "put" else size
        if any(end != wanted for end in ends):
            print(f"> failed {ends}", flush=True)
            break
    else:
        print(f"> {time.perf_counter() - begin}", flush=True)
