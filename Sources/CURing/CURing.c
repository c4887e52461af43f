#include "CURing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/ioctl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <liburing.h>

// Younger than the headers of the oldest distribution we build on.
#ifndef BLOCK_URING_CMD_DISCARD
#define BLOCK_URING_CMD_DISCARD _IO(0x12, 0)
#endif

struct hf_ring {
    struct io_uring ring;
    int mode;
};

// liburing maps and unmaps by its own system calls, which the thread sanitizer does not see: to it a ring made where another
// thread's had been would be that thread's memory still. It is told that a place is made after it was let go of.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
void __tsan_acquire(void *address);
void __tsan_release(void *address);
static char mappings;
#define MAPPED() __tsan_acquire(&mappings)
#define UNMAPPING() __tsan_release(&mappings)
#endif
#endif
#ifndef MAPPED
#define MAPPED() ((void)0)
#define UNMAPPING() ((void)0)
#endif

int hf_ring_create(uint32_t entries, hf_ring **out) {
    static const unsigned modes[] = {
        0, IORING_SETUP_COOP_TASKRUN, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    hf_ring *made = calloc(1, sizeof *made);
    if (!made) return -ENOMEM;
    int error = -EINVAL;
    for (made->mode = 2; made->mode >= 0; made->mode--) {
        error = io_uring_queue_init(entries, &made->ring, modes[made->mode] | IORING_SETUP_R_DISABLED);
        if (error != -EINVAL) break;
    }
    if (error < 0) {
        free(made);
        return error;
    }
    MAPPED();
    *out = made;
    return 0;
}

// The kernel's call itself: liburing 2.3 declares its wrapper and does not export it.
int hf_ring_enable(hf_ring *ring) {
    long result = syscall(SYS_io_uring_register, ring->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (result < 0) return -errno;
    ring->ring.flags &= ~IORING_SETUP_R_DISABLED;
    return 0;
}

void hf_ring_destroy(hf_ring *ring) {
    // The kernel takes a ring down in its own time; what was registered is let go of now, or a device would look busy
    // to whoever opens it next.
    io_uring_unregister_files(&ring->ring);
    io_uring_unregister_buffers(&ring->ring);
    UNMAPPING();
    io_uring_queue_exit(&ring->ring);
    free(ring);
}

int hf_ring_mode(const hf_ring *ring) { return ring->mode; }

int hf_ring_register_buffers(hf_ring *ring, void *const *addresses, const size_t *lengths, uint32_t count) {
    struct iovec *parts = calloc(count, sizeof *parts);
    if (!parts) return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) parts[i] = (struct iovec){addresses[i], lengths[i]};
    int result = io_uring_register_buffers(&ring->ring, parts, count);
    free(parts);
    return result;
}

int hf_ring_register_file(hf_ring *ring, int descriptor) {
    return io_uring_register_files(&ring->ring, &descriptor, 1);
}

/// A submission of which only the tag is set, or NULL.
static struct io_uring_sqe *next(hf_ring *ring) { return io_uring_get_sqe(&ring->ring); }

static int queued(struct io_uring_sqe *entry, uint64_t tag, unsigned flags) {
    io_uring_sqe_set_flags(entry, flags);
    io_uring_sqe_set_data64(entry, tag);
    return 0;
}

int hf_ring_read(hf_ring *ring, uint64_t tag, void *address, uint32_t bytes, int64_t offset, int buffer) {
    struct io_uring_sqe *entry = next(ring);
    if (!entry) return -EBUSY;
    if (buffer < 0) io_uring_prep_read(entry, 0, address, bytes, (uint64_t)offset);
    else io_uring_prep_read_fixed(entry, 0, address, bytes, (uint64_t)offset, buffer);
    return queued(entry, tag, IOSQE_FIXED_FILE);
}

int hf_ring_write(hf_ring *ring, uint64_t tag, const void *address, uint32_t bytes, int64_t offset, int buffer) {
    struct io_uring_sqe *entry = next(ring);
    if (!entry) return -EBUSY;
    if (buffer < 0) io_uring_prep_write(entry, 0, address, bytes, (uint64_t)offset);
    else io_uring_prep_write_fixed(entry, 0, address, bytes, (uint64_t)offset, buffer);
    return queued(entry, tag, IOSQE_FIXED_FILE);
}

int hf_ring_sync_data(hf_ring *ring, uint64_t tag) {
    struct io_uring_sqe *entry = next(ring);
    if (!entry) return -EBUSY;
    io_uring_prep_fsync(entry, 0, IORING_FSYNC_DATASYNC);
    return queued(entry, tag, IOSQE_FIXED_FILE);
}

int hf_ring_discard(hf_ring *ring, uint64_t tag, int64_t offset, int64_t bytes, int way) {
    struct io_uring_sqe *entry = next(ring);
    if (!entry) return -EBUSY;
    if (way == 0) {
        io_uring_prep_rw(IORING_OP_URING_CMD, entry, 0, (const void *)(uintptr_t)offset, 0, 0);
        entry->cmd_op = BLOCK_URING_CMD_DISCARD;
        entry->addr3 = (uint64_t)bytes;
    } else {
        io_uring_prep_fallocate(
            entry, 0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (uint64_t)offset, (uint64_t)bytes);
    }
    return queued(entry, tag, IOSQE_FIXED_FILE);
}

int hf_ring_poll(hf_ring *ring, uint64_t tag, int descriptor) {
    struct io_uring_sqe *entry = next(ring);
    if (!entry) return -EBUSY;
    io_uring_prep_poll_add(entry, descriptor, POLLIN);
    return queued(entry, tag, 0);
}

int hf_ring_wait(hf_ring *ring, int wait, int64_t timeout_ns, uint64_t *tags, int32_t *results, uint32_t count_max) {
    struct io_uring_cqe *entries[64];
    if (count_max > 64) count_max = 64;
    int error = 0;
    if (!wait) {
        error = io_uring_submit_and_get_events(&ring->ring);
    } else if (timeout_ns < 0) {
        error = io_uring_submit_and_wait(&ring->ring, 1);
    } else {
        struct __kernel_timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
        error = io_uring_submit_and_wait_timeout(&ring->ring, entries, 1, &limit, NULL);
    }
    // A signal, the end of the time, and a busy completion queue are ordinary: what there is gets taken below.
    if (error < 0 && error != -EINTR && error != -ETIME && error != -EBUSY && error != -EAGAIN) return error;
    unsigned count = io_uring_peek_batch_cqe(&ring->ring, entries, count_max);
    for (unsigned i = 0; i < count; i++) {
        tags[i] = entries[i]->user_data;
        results[i] = entries[i]->res;
    }
    io_uring_cq_advance(&ring->ring, count);
    return (int)count;
}
