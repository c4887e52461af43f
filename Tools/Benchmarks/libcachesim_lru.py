"""Replays an oracleGeneral file through libCacheSim's LRU once for each line on standard input.

Prints the processor seconds of each run, taken around the library's own C loop, and its miss ratio.
"""

import sys
import time

import libcachesim


def main() -> None:
    path, capacity = sys.argv[1], int(sys.argv[2])
    reader = libcachesim.TraceReader(
        path, libcachesim.TraceType.ORACLE_GENERAL_TRACE, libcachesim.ReaderInitParam(ignore_obj_size=True)
    )
    # The default of 2**24 buckets makes it two to four times slower: this is the smallest power that holds the cache.
    power = max(16, (capacity - 1).bit_length())
    for _ in sys.stdin:
        reader.reset()
        cache = libcachesim.LRU(capacity, hashpower=power)
        start = time.process_time()
        miss_ratio, _ = cache.process_trace(reader)
        print(time.process_time() - start, repr(miss_ratio), flush=True)


if __name__ == "__main__":
    main()
