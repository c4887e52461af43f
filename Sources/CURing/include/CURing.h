// The door to liburing: one ring with registered buffers and one registered file. Every function returns a value >= 0,
// or -errno. A ring belongs to the thread that enabled it; nothing here locks.
#ifndef HOLDFAST_CURING_H
#define HOLDFAST_CURING_H

#include <stddef.h>
#include <stdint.h>

typedef struct hf_ring hf_ring;

/// Makes a ring for at most `entries` submissions a turn. It does nothing before `hf_ring_enable`; until then any
/// thread may register buffers and the file.
int hf_ring_create(uint32_t entries, hf_ring **ring);
/// Makes the calling thread the ring's only submitter.
int hf_ring_enable(hf_ring *ring);
void hf_ring_destroy(hf_ring *ring);
/// 2 = completions run only when the owner asks for them (Linux 6.1), 1 = without interrupting it (5.19), 0 = as ever.
int hf_ring_mode(const hf_ring *ring);

/// Registers `count` buffers; each at most 1 GiB. -ENOMEM: above the limit of locked memory.
int hf_ring_register_buffers(hf_ring *ring, void *const *addresses, const size_t *lengths, uint32_t count);
int hf_ring_register_file(hf_ring *ring, int descriptor);

// Each of these queues one submission for the registered file, to be sent by the next `hf_ring_wait`; -EBUSY when the
// ring's queue is full. `buffer` is the number of the registered buffer around the address, -1 for plain memory.
int hf_ring_read(hf_ring *ring, uint64_t tag, void *address, uint32_t bytes, int64_t offset, int buffer);
int hf_ring_write(hf_ring *ring, uint64_t tag, const void *address, uint32_t bytes, int64_t offset, int buffer);
int hf_ring_sync_data(hf_ring *ring, uint64_t tag);
/// Tells a block device that a range holds nothing. way: 0 = discard command (Linux 6.12), 1 = hole by fallocate.
int hf_ring_discard(hf_ring *ring, uint64_t tag, int64_t offset, int64_t bytes, int way);
/// Completes once when the descriptor becomes readable.
int hf_ring_poll(hf_ring *ring, uint64_t tag, int descriptor);

/// Sends what was queued and takes at most `count_max` completions. `wait` = 1 waits for the first of them for at most
/// timeout_ns (-1 = no limit). Returns how many tags[i], results[i] are filled; 0 after the time has passed.
int hf_ring_wait(hf_ring *ring, int wait, int64_t timeout_ns, uint64_t *tags, int32_t *results, uint32_t count_max);

#endif
