// Memory that another process shares with this one and may cut short under our hands. Reading a page that is no longer in
// its file raises SIGBUS; here that ends in zeros and a mark, not in the end of the process.
#include "CKernel.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { watches_max = 4096 };

struct watch {
    _Atomic uintptr_t start; // 0: free
    _Atomic uintptr_t end;
    _Atomic int is_lost;
};

static struct watch watches[watches_max];
static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction earlier;
static int is_installed;

// Runs on the thread that touched the page. Only what a handler may call: atomics and mmap, a plain system call.
static void page_is_gone(int number, siginfo_t *info, void *context) {
    uintptr_t at = (uintptr_t)info->si_addr;
    int kept_errno = errno;
    for (int i = 0; i < watches_max; i++) {
        uintptr_t start = atomic_load(&watches[i].start), end = atomic_load(&watches[i].end);
        if (start == 0 || at < start || at >= end) continue;
        atomic_store(&watches[i].is_lost, 1);
        // The whole region at once: a part of a mapping of huge pages could not be replaced.
        void *got = mmap(
            (void *)start, end - start, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
            -1, 0);
        errno = kept_errno;
        if (got != MAP_FAILED) return;
        break;
    }
    if (earlier.sa_flags & SA_SIGINFO && earlier.sa_sigaction) {
        earlier.sa_sigaction(number, info, context);
    } else if (earlier.sa_handler != SIG_DFL && earlier.sa_handler != SIG_IGN) {
        earlier.sa_handler(number);
    } else {
        // Returning runs the same instruction again, now with the default action.
        signal(SIGBUS, SIG_DFL);
    }
}

static int install(void) {
    if (is_installed) return 0;
    struct sigaction action = {.sa_sigaction = page_is_gone, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, &action, &earlier) < 0) return -errno;
    is_installed = 1;
    return 0;
}

int hf_region_map(int descriptor, uint64_t bytes, void **address, size_t *mapped_bytes, int *is_sealed) {
    struct stat file;
    if (fstat(descriptor, &file) < 0) return -errno;
    if (!S_ISREG(file.st_mode)) return -ENOTSUP;
    if (bytes == 0 || bytes > (uint64_t)INT64_MAX || (uint64_t)file.st_size < bytes) return -ERANGE;
    if ((fcntl(descriptor, F_GETFL) & O_ACCMODE) != O_RDWR) return -EACCES;
    // The size is looked at again once it cannot change any more.
    int seals = fcntl(descriptor, F_GET_SEALS);
    if (seals >= 0 && !(seals & F_SEAL_SHRINK) && !(seals & F_SEAL_SEAL)) {
        fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK);
        seals = fcntl(descriptor, F_GET_SEALS);
    }
    *is_sealed = seals >= 0 && (seals & F_SEAL_SHRINK);
    if (fstat(descriptor, &file) < 0) return -errno;
    if ((uint64_t)file.st_size < bytes) return -ERANGE;

    // Files of huge pages say so by their block size; whole pages are mapped.
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    if ((uint64_t)file.st_blksize > page && (file.st_blksize & (file.st_blksize - 1)) == 0
        && (uint64_t)file.st_size % (uint64_t)file.st_blksize == 0)
        page = (uint64_t)file.st_blksize;
    size_t whole = (size_t)((bytes + page - 1) / page * page);

    pthread_mutex_lock(&changing);
    int result = install(), slot = 0;
    if (result == 0) {
        while (slot < watches_max && atomic_load(&watches[slot].start) != 0) slot++;
        if (slot == watches_max) result = -EMFILE;
    }
    if (result == 0) {
        void *at = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
        if (at == MAP_FAILED) {
            result = -errno;
        } else {
            atomic_store(&watches[slot].is_lost, 0);
            atomic_store(&watches[slot].end, (uintptr_t)at + whole);
            atomic_store(&watches[slot].start, (uintptr_t)at);
            *address = at;
            *mapped_bytes = whole;
            result = slot;
        }
    }
    pthread_mutex_unlock(&changing);
    return result;
}

int hf_region_is_lost(int watch) { return atomic_load(&watches[watch].is_lost); }

int hf_region_unmap(int watch) {
    pthread_mutex_lock(&changing);
    uintptr_t start = atomic_load(&watches[watch].start), end = atomic_load(&watches[watch].end);
    int result = munmap((void *)start, end - start) < 0 ? -errno : 0;
    atomic_store(&watches[watch].start, 0);
    pthread_mutex_unlock(&changing);
    return result;
}
