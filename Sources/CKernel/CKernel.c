#include "CKernel.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/memfd.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define OR_ERRNO(call) ((call) < 0 ? -errno : 0)

// --- files and devices

int hf_open_direct(const char *path, uint32_t flags) {
    int how = O_CLOEXEC;
    how |= flags & HF_OPEN_READ_ONLY ? O_RDONLY : O_RDWR;
    if (flags & HF_OPEN_CREATING) how |= O_CREAT;
    if (flags & HF_OPEN_EXCLUSIVE) how |= O_EXCL;
    if (!(flags & HF_OPEN_CACHED)) how |= O_DIRECT;
    // A pipe would be waited for until somebody opens its other end.
    int descriptor = open(path, how | O_NONBLOCK, 0600);
    if (descriptor < 0) return -errno;
    // Behind it io_uring would answer EAGAIN where a transfer has to wait.
    int status = fcntl(descriptor, F_GETFL);
    if (status >= 0 && fcntl(descriptor, F_SETFL, status & ~O_NONBLOCK) == 0) return descriptor;
    int error = errno;
    close(descriptor);
    return -error;
}

int hf_duplicate(int descriptor) {
    int copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
    return copy < 0 ? -errno : copy;
}

int hf_close(int descriptor) { return OR_ERRNO(close(descriptor)); }

int64_t hf_size(int descriptor) {
    struct stat about;
    if (fstat(descriptor, &about) < 0) return -errno;
    if (S_ISREG(about.st_mode)) return about.st_size;
    uint64_t bytes = 0;
    if (!S_ISBLK(about.st_mode)) return -ENOTSUP;
    return ioctl(descriptor, BLKGETSIZE64, &bytes) < 0 ? -errno : (int64_t)bytes;
}

int hf_is_block_device(int descriptor) {
    struct stat about;
    if (fstat(descriptor, &about) < 0) return -errno;
    return S_ISBLK(about.st_mode) ? 1 : S_ISREG(about.st_mode) ? 0 : -ENOTSUP;
}

int hf_logical_block_bytes(int descriptor) {
    if (hf_is_block_device(descriptor) != 1) return 4096;
    int bytes = 0;
    return ioctl(descriptor, BLKSSZGET, &bytes) < 0 ? -errno : bytes;
}

int hf_has_volatile_cache(int descriptor) {
    struct stat about;
    if (fstat(descriptor, &about) < 0) return -errno;
    if (!S_ISBLK(about.st_mode)) return 1;
    char path[96], word[32] = "";
    // A partition has no queue of its own; its disk's lies one folder up.
    const char *forms[] = {"/sys/dev/block/%u:%u/queue/write_cache", "/sys/dev/block/%u:%u/../queue/write_cache"};
    for (int form = 0; form < 2; form++) {
        snprintf(path, sizeof path, forms[form], major(about.st_rdev), minor(about.st_rdev));
        FILE *file = fopen(path, "re");
        if (!file) continue;
        size_t count = fread(word, 1, sizeof word - 1, file);
        fclose(file);
        word[count] = 0;
        return strncmp(word, "write through", 13) != 0;
    }
    return 1;
}

int hf_allocate(int descriptor, int64_t bytes) { return OR_ERRNO(fallocate(descriptor, 0, 0, bytes)); }

int hf_discard(int descriptor, int64_t offset, int64_t bytes) {
    if (hf_is_block_device(descriptor) == 1) {
        uint64_t range[2] = {(uint64_t)offset, (uint64_t)bytes};
        return OR_ERRNO(ioctl(descriptor, BLKDISCARD, range));
    }
    return OR_ERRNO(fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes));
}

int hf_lock_exclusive(int descriptor) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return OR_ERRNO(fcntl(descriptor, F_OFD_SETLK, &lock));
}

int hf_sync_data(int descriptor) { return OR_ERRNO(fdatasync(descriptor)); }

// --- memory

static const size_t huge_bytes = 2u << 20;

static size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

int hf_map_pages(size_t bytes, int want_huge, void **address, size_t *mapped_bytes, size_t *page_bytes) {
    if (want_huge) {
        size_t length = rounded(bytes, huge_bytes);
        void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
        if (at != MAP_FAILED) {
            *address = at, *mapped_bytes = length, *page_bytes = huge_bytes;
            return 0;
        }
        // Transparent huge pages need an aligned start: map one page more and cut the ends.
        char *wide = mmap(NULL, length + huge_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (wide == MAP_FAILED) return -errno;
        char *start = (char *)rounded((uintptr_t)wide, huge_bytes);
        if (start > wide) munmap(wide, (size_t)(start - wide));
        size_t tail = (size_t)(wide + length + huge_bytes - (start + length));
        if (tail) munmap(start + length, tail);
        int advised = madvise(start, length, MADV_HUGEPAGE) == 0;
        *address = start, *mapped_bytes = length, *page_bytes = advised ? huge_bytes : (size_t)sysconf(_SC_PAGESIZE);
        return 0;
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE), length = rounded(bytes, page);
    void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return -errno;
    *address = at, *mapped_bytes = length, *page_bytes = page;
    return 0;
}

int hf_unmap(void *address, size_t mapped_bytes) { return OR_ERRNO(munmap(address, mapped_bytes)); }

int hf_memory_file(const char *name, int64_t bytes, int flags) {
    int huge = flags & HF_MEMORY_HUGE_PAGES ? MFD_HUGETLB : 0;
    int descriptor = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | huge);
    if (descriptor < 0) return -errno;
    int is_sealed = !(flags & HF_MEMORY_UNSEALED);
    if (ftruncate(descriptor, bytes) < 0
        || (is_sealed && fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)) {
        int error = -errno;
        close(descriptor);
        return error;
    }
    return descriptor;
}

int hf_map_shared(int descriptor, size_t bytes, int writable, void **address) {
    void *at = mmap(NULL, bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, descriptor, 0);
    if (at == MAP_FAILED) return -errno;
    *address = at;
    return 0;
}

int hf_reopen(int descriptor, int writable) {
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    int opened = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    return opened < 0 ? -errno : opened;
}

uint64_t hf_load_word(const void *words, size_t index) {
    // What was read before must not be read after: a load alone would only order what follows it.
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n((const uint64_t *)words + index, __ATOMIC_ACQUIRE);
}

void hf_store_word(void *words, size_t index, uint64_t value) {
    __atomic_store_n((uint64_t *)words + index, value, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

int hf_pin(void *address, size_t bytes) { return OR_ERRNO(mlock2(address, bytes, MLOCK_ONFAULT)); }

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14; the C library's header may be older.
#endif

int hf_populate(void *address, size_t bytes) {
    int result;
    do result = madvise(address, bytes, MADV_POPULATE_WRITE);
    while (result < 0 && (errno == EINTR || errno == EAGAIN));
    if (result == 0 || errno != EINVAL) return OR_ERRNO(result);
    // An older kernel: one touch a page, which writes back what is there.
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t at = 0; at < bytes; at += page) __atomic_fetch_add((char *)address + at, 0, __ATOMIC_RELAXED);
    return 0;
}

int hf_advise_huge(void *address, size_t bytes) { return OR_ERRNO(madvise(address, bytes, MADV_HUGEPAGE)); }

int hf_map_shared_aligned(int descriptor, size_t bytes, void **address) {
    // Address space first, a huge page more than is needed; then the file over its aligned part, and the ends go.
    size_t wide_bytes = rounded(bytes, huge_bytes) + huge_bytes;
    char *wide = mmap(NULL, wide_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (wide == MAP_FAILED) return -errno;
    char *start = (char *)rounded((uintptr_t)wide, huge_bytes);
    if (mmap(start, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptor, 0) == MAP_FAILED) {
        int error = -errno;
        munmap(wide, wide_bytes);
        return error;
    }
    char *end = start + rounded(bytes, huge_bytes);
    if (start > wide) munmap(wide, (size_t)(start - wide));
    munmap(end, (size_t)(wide + wide_bytes - end));
    *address = start;
    return 0;
}

int64_t hf_huge_bytes_at(const void *address) {
    FILE *maps = fopen("/proc/self/smaps", "re");
    if (!maps) return -errno;
    char line[512];
    int64_t found = -ENOENT;
    int is_inside = 0;
    while (fgets(line, sizeof line, maps)) {
        unsigned long start, end;
        long long kilobytes;
        char name[64];
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
            is_inside = (uintptr_t)address >= start && (uintptr_t)address < end;
            if (is_inside) found = 0;
        } else if (is_inside && sscanf(line, "%63[^:]: %lld kB", name, &kilobytes) == 2) {
            if (!strcmp(name, "ShmemPmdMapped") || !strcmp(name, "AnonHugePages") || !strcmp(name, "Shared_Hugetlb")
                || !strcmp(name, "Private_Hugetlb"))
                found += kilobytes * 1024;
        }
    }
    fclose(maps);
    return found;
}

// --- waking and waiting

int hf_event_create(void) {
    int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return descriptor < 0 ? -errno : descriptor;
}

int hf_event_signal(int descriptor) {
    uint64_t one = 1;
    return write(descriptor, &one, sizeof one) < 0 && errno != EAGAIN ? -errno : 0;
}

int hf_event_clear(int descriptor) {
    uint64_t count = 0;
    if (read(descriptor, &count, sizeof count) < 0) return errno == EAGAIN ? 0 : -errno;
    return 1;
}

int hf_event_wait(int descriptor, int64_t timeout_ns) {
    // To the nanosecond: who looks after a device every 20 µs would sleep fifty times as long by the millisecond.
    struct timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    struct pollfd waiting = {.fd = descriptor, .events = POLLIN};
    return OR_ERRNO(ppoll(&waiting, 1, timeout_ns < 0 ? NULL : &limit, NULL));
}

int hf_poller_create(void) {
    int descriptor = epoll_create1(EPOLL_CLOEXEC);
    return descriptor < 0 ? -errno : descriptor;
}

int hf_poller_set(int poller, int descriptor, uint32_t events, uint64_t tag, int change) {
    struct epoll_event event = {.data.u64 = tag};
    if (events & HF_READABLE) event.events |= EPOLLIN | EPOLLRDHUP;
    if (events & HF_WRITABLE) event.events |= EPOLLOUT;
    if (events & HF_EDGE_TRIGGERED) event.events |= EPOLLET;
    int operation = events == 0 && !change ? EPOLL_CTL_DEL : change ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    return OR_ERRNO(epoll_ctl(poller, operation, descriptor, &event));
}

int hf_poller_wait(int poller, uint64_t *tags, uint32_t *events, int count_max, int64_t timeout_ns) {
    struct epoll_event ready[64];
    if (count_max > 64) count_max = 64;
    struct timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    int count = epoll_pwait2(poller, ready, count_max, timeout_ns < 0 ? NULL : &limit, NULL);
    // Containers of before the call refuse it, or say that they do not know it.
    if (count < 0 && (errno == ENOSYS || errno == EPERM)) {
        int64_t ms = (timeout_ns + 999999) / 1000000;
        count = epoll_wait(poller, ready, count_max, timeout_ns < 0 ? -1 : ms > INT32_MAX ? INT32_MAX : (int)ms);
    }
    if (count < 0) return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        uint32_t got = ready[i].events;
        tags[i] = ready[i].data.u64;
        events[i] = (got & (EPOLLIN | EPOLLRDHUP) ? HF_READABLE : 0) | (got & EPOLLOUT ? HF_WRITABLE : 0)
            | (got & (EPOLLERR | EPOLLHUP) ? HF_HUNG_UP : 0) | (got & EPOLLRDHUP ? HF_PEER_ENDED : 0);
    }
    return count;
}

// --- sockets

static int resolve(const char *address, uint16_t port, int passive, struct addrinfo **found) {
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = passive ? AI_PASSIVE : 0};
    int error = getaddrinfo(address, service, &hints, found);
    return error == 0 ? 0 : error == EAI_SYSTEM ? -errno : -EADDRNOTAVAIL;
}

int hf_tcp_listen(const char *address, uint16_t port, int backlog) {
    struct addrinfo *found;
    int error = resolve(address, port, 1, &found);
    if (error < 0) return error;
    int descriptor = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    if (descriptor < 0 || setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0
        || bind(descriptor, found->ai_addr, found->ai_addrlen) < 0 || listen(descriptor, backlog) < 0) {
        error = -errno;
        if (descriptor >= 0) close(descriptor);
        descriptor = error;
    }
    freeaddrinfo(found);
    return descriptor;
}

int hf_tcp_connect(const char *address, uint16_t port) {
    struct addrinfo *found;
    int error = resolve(address, port, 0, &found);
    if (error < 0) return error;
    int descriptor = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (descriptor < 0 || (connect(descriptor, found->ai_addr, found->ai_addrlen) < 0 && errno != EINPROGRESS)) {
        error = -errno;
        if (descriptor >= 0) close(descriptor);
        descriptor = error;
    }
    freeaddrinfo(found);
    return descriptor;
}

int hf_accept(int listener, char *peer, size_t peer_bytes) {
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    int descriptor = accept4(listener, (struct sockaddr *)&from, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (descriptor < 0) return -errno;
    char host[64] = "", service[8] = "";
    if (peer_bytes && from.ss_family != AF_UNIX) {
        getnameinfo(
            (struct sockaddr *)&from, length, host, sizeof host, service, sizeof service, NI_NUMERICHOST | NI_NUMERICSERV);
        snprintf(peer, peer_bytes, from.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, service);
    } else if (peer_bytes) {
        snprintf(peer, peer_bytes, "local");
    }
    return descriptor;
}

int hf_tcp_configure(int descriptor, uint32_t user_timeout_ms, uint32_t buffer_bytes) {
    int one = 1, idle = 10, every = 5, probes = 3, buffer = (int)buffer_bytes;
    if (setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0
        || setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one) < 0
        || setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle) < 0
        || setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every) < 0
        || setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes) < 0
        || setsockopt(descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof user_timeout_ms) < 0)
        return -errno;
    if (buffer
        && (setsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer) < 0
            || setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer) < 0))
        return -errno;
    return 0;
}

int64_t hf_tcp_unacknowledged(int descriptor) {
    int left = 0;
    return ioctl(descriptor, SIOCOUTQ, &left) < 0 ? -errno : left;
}

int hf_shut_down(int descriptor) { return OR_ERRNO(shutdown(descriptor, SHUT_RDWR)); }

int hf_socket_pair(int *one, int *other) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) return -errno;
    *one = pair[0], *other = pair[1];
    return 0;
}

int hf_socket_port(int descriptor) {
    struct sockaddr_storage at;
    socklen_t length = sizeof at;
    if (getsockname(descriptor, (struct sockaddr *)&at, &length) < 0) return -errno;
    if (at.ss_family == AF_INET) return ntohs(((struct sockaddr_in *)&at)->sin_port);
    return at.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&at)->sin6_port) : -ENOTSUP;
}

int hf_socket_error(int descriptor) {
    int error = 0;
    socklen_t length = sizeof error;
    return getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length) < 0 ? -errno : -error;
}

int64_t hf_receive(int descriptor, void *bytes, size_t count) {
    ssize_t got;
    do got = recv(descriptor, bytes, count, 0);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

int hf_wake_at_bytes(int descriptor, uint32_t bytes) {
    int count = (int)bytes;
    return OR_ERRNO(setsockopt(descriptor, SOL_SOCKET, SO_RCVLOWAT, &count, sizeof count));
}

int64_t hf_send(int descriptor, const void *bytes, size_t count, int more) {
    ssize_t sent;
    do sent = send(descriptor, bytes, count, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

int64_t hf_send_two(int descriptor, const void *first, size_t first_bytes, const void *second, size_t second_bytes) {
    struct iovec parts[2] = {{(void *)first, first_bytes}, {(void *)second, second_bytes}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t sent;
    do sent = sendmsg(descriptor, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

// --- local sockets and descriptor passing

static int unix_address(const char *path, struct sockaddr_un *at) {
    *at = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof at->sun_path) return -ENAMETOOLONG;
    strcpy(at->sun_path, path);
    return 0;
}

static int unix_open(const char *path, int backlog, uint32_t mode) {
    struct sockaddr_un at;
    int error = unix_address(path, &at);
    if (error < 0) return error;
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (descriptor < 0) return -errno;
    int failed = 0;
    if (!backlog) {
        failed = connect(descriptor, (struct sockaddr *)&at, sizeof at) < 0;
    } else {
        // Linux gives the file the mode of the socket's own inode, so that it never stands there with more rights than these; with
        // fewer it does, for the process's umask is taken from them. Nobody can connect before `listen`.
        failed = fchmod(descriptor, mode) < 0 || bind(descriptor, (struct sockaddr *)&at, sizeof at) < 0;
        if (!failed && (chmod(path, mode) < 0 || listen(descriptor, backlog) < 0)) {
            failed = errno;
            unlink(path);
            errno = failed;
        }
    }
    if (!failed) return descriptor;
    error = -errno;
    close(descriptor);
    return error;
}

int hf_unix_listen(const char *path, int backlog, uint32_t mode) {
    return unix_open(path, backlog > 0 ? backlog : 1, mode);
}

int hf_unix_connect(const char *path) { return unix_open(path, 0, 0); }

enum { descriptors_max = 16 };

int64_t hf_send_descriptors(int socket, const void *bytes, size_t count, const int *descriptors, int descriptor_count) {
    if (descriptor_count > descriptors_max) return -EINVAL;
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * descriptors_max)];
    } control = {0};
    struct iovec part = {(void *)bytes, count};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (descriptor_count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)descriptor_count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)descriptor_count);
        memcpy(CMSG_DATA(header), descriptors, sizeof(int) * (size_t)descriptor_count);
    }
    ssize_t sent;
    do sent = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

int64_t hf_receive_descriptors(int socket, void *bytes, size_t count, int *descriptors, int *descriptor_count) {
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * descriptors_max)];
    } control;
    struct iovec part = {bytes, count};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    int room = *descriptor_count, found = 0;
    *descriptor_count = 0;
    ssize_t got;
    do got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0) return -errno;
    for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at)) {
        if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
        int here = (int)((at->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int i = 0; i < here; i++) {
            int descriptor;
            memcpy(&descriptor, CMSG_DATA(at) + sizeof(int) * (size_t)i, sizeof(int));
            // What the caller has no room for is closed, never leaked.
            if (found < room) descriptors[found++] = descriptor;
            else close(descriptor);
        }
    }
    *descriptor_count = found;
    return got;
}

int hf_peer_credentials(int socket, uint32_t *pid, uint32_t *uid, uint32_t *gid) {
    struct ucred who;
    socklen_t length = sizeof who;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &length) < 0) return -errno;
    *pid = (uint32_t)who.pid, *uid = who.uid, *gid = who.gid;
    return 0;
}

// --- threads, clock and this process

static int64_t nanoseconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t hf_monotonic_ns(void) { return nanoseconds(CLOCK_MONOTONIC); }

int64_t hf_realtime_ns(void) { return nanoseconds(CLOCK_REALTIME); }

int64_t hf_process_cpu_ns(void) { return nanoseconds(CLOCK_PROCESS_CPUTIME_ID); }

int hf_set_thread_nice(int nice) {
    // On Linux the "process" 0 is the calling thread.
    return setpriority(PRIO_PROCESS, 0, nice) == 0 ? 0 : -errno;
}

int hf_wait_for_end(int process) {
    int descriptor = (int)syscall(SYS_pidfd_open, process, 0);
    if (descriptor < 0) return errno == ESRCH ? 0 : -errno;
    struct pollfd watched = {.fd = descriptor, .events = POLLIN};
    int result;
    do result = poll(&watched, 1, -1);
    while (result < 0 && errno == EINTR);
    int reason = errno;
    close(descriptor);
    return result < 0 ? -reason : 0;
}

void hf_name_thread(const char *name) {
    char cut[16];
    snprintf(cut, sizeof cut, "%s", name);
    pthread_setname_np(pthread_self(), cut);
}

void hf_flag_set(uint32_t *word) {
    if (__atomic_exchange_n(word, 2, __ATOMIC_SEQ_CST) == 1)
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

int hf_flag_is_set(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE) == 2; }

int hf_flag_wait(uint32_t *word, int64_t limit_ns) {
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    // More than a century is no other time than for ever.
    if (limit_ns > INT64_MAX / 4) limit_ns = INT64_MAX / 4;
    end.tv_sec += limit_ns / 1000000000;
    end.tv_nsec += limit_ns % 1000000000;
    if (end.tv_nsec >= 1000000000) end.tv_sec++, end.tv_nsec -= 1000000000;
    for (;;) {
        uint32_t seen = 0;
        if (!__atomic_compare_exchange_n(word, &seen, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) && seen == 2) return 1;
        // An absolute end: whoever is woken for nothing does not wait longer for it.
        if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, 1, &end, NULL, FUTEX_BITSET_MATCH_ANY) < 0
            && errno == ETIMEDOUT)
            return __atomic_load_n(word, __ATOMIC_SEQ_CST) == 2;
    }
}

int hf_pin_thread(int cpu) {
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    return -pthread_setaffinity_np(pthread_self(), sizeof only, &only);
}

int hf_random(void *bytes, size_t count) {
    for (size_t done = 0; done < count;) {
        ssize_t got = getrandom((char *)bytes + done, count - done, 0);
        if (got < 0 && errno != EINTR) return -errno;
        if (got > 0) done += (size_t)got;
    }
    return 0;
}

int64_t hf_resident_bytes(void) {
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file) return -errno;
    long long total = 0, resident = 0;
    int fields = fscanf(file, "%lld %lld", &total, &resident);
    fclose(file);
    return fields == 2 ? resident * sysconf(_SC_PAGESIZE) : -EIO;
}

int hf_open_descriptors(void) {
    DIR *folder = opendir("/proc/self/fd");
    if (!folder) return -errno;
    int count = -3; // the folder itself, "." and ".."
    while (readdir(folder)) count++;
    closedir(folder);
    return count;
}
