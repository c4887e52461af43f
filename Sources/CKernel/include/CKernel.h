// Kernel calls that Glibc's module map lacks or shows differently from module to module. Every function returns a
// value >= 0, or -errno. Nothing here keeps state.
#ifndef HOLDFAST_CKERNEL_H
#define HOLDFAST_CKERNEL_H

#include <stddef.h>
#include <stdint.h>

// --- files and devices

/// Flags of `hf_open_direct`: make the file when it is missing,
#define HF_OPEN_CREATING 1u
/// for reading only,
#define HF_OPEN_READ_ONLY 2u
/// refuse a mounted block device,
#define HF_OPEN_EXCLUSIVE 4u
/// through the page cache (file systems without O_DIRECT).
#define HF_OPEN_CACHED 8u

/// Opens a file or block device for reading and writing without the page cache (O_DIRECT | O_CLOEXEC). It never waits: a
/// pipe is opened, and `hf_is_block_device` says what it is.
int hf_open_direct(const char *path, uint32_t flags);
int hf_close(int descriptor);
/// Another descriptor of the same open file.
int hf_duplicate(int descriptor);
/// Bytes of a regular file or a block device.
int64_t hf_size(int descriptor);
/// 1 for a block device, 0 for a regular file, -ENOTSUP for anything else.
int hf_is_block_device(int descriptor);
/// Bytes of the device's logical block, at least 512; for a file 4096.
int hf_logical_block_bytes(int descriptor);
/// Whether the device has a volatile write cache: 1 = must be flushed, 0 = write-through.
int hf_has_volatile_cache(int descriptor);
/// Reserves `bytes` from the start of a regular file; its size becomes at least that.
int hf_allocate(int descriptor, int64_t bytes);
/// Gives [offset, offset + bytes) back to the device or file system.
int hf_discard(int descriptor, int64_t offset, int64_t bytes);
/// Takes the advisory lock of the whole open file description, without waiting; -EAGAIN when another has it.
int hf_lock_exclusive(int descriptor);
int hf_sync_data(int descriptor);

// --- memory

/// Maps private memory, rounded up to the page size used; *page_bytes says which one it became. Huge pages are tried
/// first (reserved ones, then transparent ones) when wanted.
int hf_map_pages(size_t bytes, int want_huge, void **address, size_t *mapped_bytes, size_t *page_bytes);
int hf_unmap(void *address, size_t mapped_bytes);
/// Flags of `hf_memory_file`: on reserved huge pages,
#define HF_MEMORY_HUGE_PAGES 1
/// its size not sealed.
#define HF_MEMORY_UNSEALED 2

/// A memory file for sharing between processes, its size sealed.
int hf_memory_file(const char *name, int64_t bytes, int flags);
int hf_map_shared(int descriptor, size_t bytes, int writable, void **address);
/// Opens what a descriptor is open on once more: for reading only, or (`writable`) for both.
int hf_reopen(int descriptor, int writable);
/// A word in shared memory, by its index. Stores are seen before what their thread does next, loads after what it did before.
uint64_t hf_load_word(const void *words, size_t index);
void hf_store_word(void *words, size_t index, uint64_t value);
/// Pins pages: those that are there, and each of the others when it comes.
int hf_pin(void *address, size_t bytes);
/// Faults all pages of a writable mapping in; -ENOMEM or -EFAULT when there is no memory for them, instead of a signal.
int hf_populate(void *address, size_t bytes);
/// Asks for transparent huge pages; -EINVAL where the kernel gives none to such a mapping.
int hf_advise_huge(void *address, size_t bytes);
/// Maps a memory file at an address that huge pages can begin at.
int hf_map_shared_aligned(int descriptor, size_t bytes, void **address);
/// Bytes of the mapping at an address that lie on huge pages at this moment.
int64_t hf_huge_bytes_at(const void *address);
/// Maps the first `bytes` of a file that another process shares, and watches the mapping: a page that the other takes
/// away is replaced (with the whole region) by zeros when somebody touches it, instead of ending this process.
/// *is_sealed: the file cannot shrink. Returns the watch's number; -ERANGE = the file is shorter.
int hf_region_map(int descriptor, uint64_t bytes, void **address, size_t *mapped_bytes, int *is_sealed);
/// 1 when zeros stand in for pages that are gone.
int hf_region_is_lost(int watch);
int hf_region_unmap(int watch);

// --- waking and waiting

int hf_event_create(void);
int hf_event_signal(int descriptor);
/// Clears the counter; 0 when it was clear already.
int hf_event_clear(int descriptor);
/// Sleeps until it is readable, until a signal of the process, or for so long; a negative time is for ever.
int hf_event_wait(int descriptor, int64_t timeout_ns);

/// What a poller waits for and tells: readable, or nothing more will come;
#define HF_READABLE 1u
/// writable;
#define HF_WRITABLE 2u
/// waited for only: tell each event once;
#define HF_EDGE_TRIGGERED 4u
/// told only: hung up or failed;
#define HF_HUNG_UP 8u
/// told only: the peer sends no more.
#define HF_PEER_ENDED 16u

int hf_poller_create(void);
/// Adds, changes (change = 1) or, with no events, removes a descriptor.
int hf_poller_set(int poller, int descriptor, uint32_t events, uint64_t tag, int change);
/// Fills tags[i] and events[i], at most 64; waits at most timeout_ns, -1 = no limit.
int hf_poller_wait(int poller, uint64_t *tags, uint32_t *events, int count_max, int64_t timeout_ns);

// --- sockets

/// A listening TCP socket on address:port (IPv4 or IPv6 text, port 0 = any), non-blocking.
int hf_tcp_listen(const char *address, uint16_t port, int backlog);
/// Starts a non-blocking connect; writable when done, hf_socket_error says how it ended.
int hf_tcp_connect(const char *address, uint16_t port);
/// Accepts one connection, non-blocking; peer gets its address as text.
int hf_accept(int listener, char *peer, size_t peer_bytes);
/// TCP_NODELAY, keep-alive, and a user timeout after which unacknowledged data ends the connection.
int hf_tcp_configure(int descriptor, uint32_t user_timeout_ms, uint32_t buffer_bytes);
/// Bytes that were handed to a TCP socket and that the peer's kernel has not acknowledged.
int64_t hf_tcp_unacknowledged(int descriptor);
/// Ends both directions of a connection; the descriptor stays open.
int hf_shut_down(int descriptor);
/// Two connected local stream sockets, non-blocking.
int hf_socket_pair(int *one, int *other);
int hf_socket_port(int descriptor);
int hf_socket_error(int descriptor);
int64_t hf_receive(int descriptor, void *bytes, size_t count);
/// From now on a TCP socket counts as readable when this many bytes are there (or none will come any more); at once
/// when they are there already.
int hf_wake_at_bytes(int descriptor, uint32_t bytes);
int64_t hf_send(int descriptor, const void *bytes, size_t count, int more);
/// Sends two pieces with one call.
int64_t hf_send_two(int descriptor, const void *first, size_t first_bytes, const void *second, size_t second_bytes);

// --- local sockets and descriptor passing

/// The socket file has these permissions when somebody can connect, whatever the umask.
int hf_unix_listen(const char *path, int backlog, uint32_t mode);
int hf_unix_connect(const char *path);
/// Sends bytes with descriptors (at most 16); receives likewise: *descriptor_count is room on entry, count on return.
int64_t hf_send_descriptors(int socket, const void *bytes, size_t count, const int *descriptors, int descriptor_count);
int64_t hf_receive_descriptors(int socket, void *bytes, size_t count, int *descriptors, int *descriptor_count);
/// The peer's process, user and group.
int hf_peer_credentials(int socket, uint32_t *pid, uint32_t *uid, uint32_t *gid);

// --- threads, clock and this process

int64_t hf_monotonic_ns(void);
int64_t hf_realtime_ns(void);
/// CPU time of the whole process.
int64_t hf_process_cpu_ns(void);
/// Waits until a process has ended; at once when there is none of that number. -ENOSYS where the kernel cannot tell.
int hf_wait_for_end(int process);
void hf_name_thread(const char *name);
/* Gives the calling thread a nice value; 0 or -errno. */
int hf_set_thread_nice(int nice);
/// Sets a flag that is 0 at first, and wakes whoever waits for it.
void hf_flag_set(uint32_t *word);
int hf_flag_is_set(const uint32_t *word);
/// Waits until a flag is set, but not longer than this. Whether it is.
int hf_flag_wait(uint32_t *word, int64_t limit_ns);
/// Binds the calling thread to one CPU.
int hf_pin_thread(int cpu);
/// Fills bytes from the kernel's random source.
int hf_random(void *bytes, size_t count);
/// Bytes of memory resident now, and open descriptors.
int64_t hf_resident_bytes(void);
int hf_open_descriptors(void);

#endif
