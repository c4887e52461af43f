// Counts what the process takes from the heap, by standing in for the C library's allocator. For benchmarks only.

#ifndef C_ALLOCATION_COUNT_H
#define C_ALLOCATION_COUNT_H

#include <stdint.h>

/// Allocations since the process started, of all threads; a `realloc` is one.
int64_t hf_allocation_count(void);

/// Bytes asked for since the process started.
int64_t hf_allocation_bytes(void);

#endif
