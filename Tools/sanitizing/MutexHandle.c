// The slow halves of Swift's Mutex in a form that the thread sanitizer can follow. The library's own hand a contended
// mutex over by compare-and-exchange in code that is not instrumented, or through the kernel (a PI futex); the sanitizer sees
// neither, and would call whatever one thread wrote before unlocking and the next reads after locking a race. A program that
// is linked with this file uses these instead. The fast halves are compiled into their callers, where the sanitizer sees them.
//
// The names and the calling convention are those of the standard library of Swift 6: the handle comes in the context
// register, its first word is the thread that holds it.

#include <errno.h>
#include <linux/futex.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

#define SWIFT_METHOD __attribute__((swiftcall))
#define SELF __attribute__((swift_context))

SWIFT_METHOD void lockSlow(uint32_t thread, SELF uint32_t *word)
    __asm__("$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF");
SWIFT_METHOD void unlockSlow(SELF uint32_t *word) __asm__("$s15Synchronization12_MutexHandleV11_unlockSlowyyF");

static void call(uint32_t *word, int operation)
{
    while (syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, 0, NULL) != 0) {
        if (errno == EINTR || errno == EAGAIN) continue;
        perror("a mutex is used wrongly");
        abort();
    }
}

SWIFT_METHOD void lockSlow(uint32_t thread, SELF uint32_t *word)
{
    (void)thread;
    call(word, FUTEX_LOCK_PI);
    __tsan_acquire(word);
}

SWIFT_METHOD void unlockSlow(SELF uint32_t *word)
{
    __tsan_release(word);
    call(word, FUTEX_UNLOCK_PI);
}
