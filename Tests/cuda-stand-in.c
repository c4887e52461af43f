// Stands in for NVIDIA's driver where there is no GPU: the functions that Holdfast uses, over ordinary memory, each stream a thread
// that runs what it was given in order and in its own time. Tests build it and steer it by the functions that begin with `stand_in`.
// It proves that calls, orders and failures are handled; of a GPU's speed it says nothing.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { NOT_READY = 600, INVALID = 1, OPS = 4096 };

typedef struct {
    uint64_t recorded, completed;
} event_t;

typedef struct {
    enum { COPY, RECORD, WAIT } kind;
    void *to;
    const void *from;
    size_t bytes;
    event_t *event;
    uint64_t number;
} op_t;

typedef struct {
    pthread_t thread;
    op_t ops[OPS];
    unsigned head, tail;
    int ends;
} stream_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static int stalls, ignores_waits, copy_error, contexts;
static size_t registered;

static void set(int *place, int value) {
    pthread_mutex_lock(&lock);
    *place = value;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
}

// --- what a test steers

void stand_in_stall(int yes) { set(&stalls, yes); }
void stand_in_ignore_waits(int yes) { set(&ignores_waits, yes); }
void stand_in_fail_copies(int error) { set(&copy_error, error); }
size_t stand_in_registered(void) { return registered; }
int stand_in_contexts(void) { return contexts; }

/// An event of "another process": recorded, not done. Its handle goes to the device, its number to `stand_in_complete`.
uint64_t stand_in_event(unsigned char handle[64]) {
    event_t *event = calloc(1, sizeof *event);
    event->recorded = 1;
    memset(handle, 0, 64);
    memcpy(handle, &event, sizeof event);
    return (uint64_t)(uintptr_t)event;
}

void stand_in_complete(uint64_t number) {
    pthread_mutex_lock(&lock);
    event_t *event = (event_t *)(uintptr_t)number;
    event->completed = event->recorded;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
}

// --- the driver

int cuInit(unsigned flags) { return flags ? INVALID : 0; }
int cuDeviceGet(int *device, int number) {
    *device = number;
    return number == 0 ? 0 : 101;
}
int cuDeviceGetName(char *name, int bytes, int device) {
    snprintf(name, (size_t)bytes, "stand-in %d", device);
    return 0;
}
int cuDeviceGetPCIBusId(char *address, int bytes, int device) {
    snprintf(address, (size_t)bytes, "0000:3B:00.%d", device);
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = (size_t)1 << 30;
    return device;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
    contexts++;
    *context = &lock;
    return device;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
    contexts--;
    return device;
}
int cuCtxSetCurrent(void *context) { return context == &lock ? 0 : INVALID; }
int cuGetErrorString(int error, const char **text) {
    *text = error == 101 ? "invalid device ordinal" : error == 2 ? "out of memory" : "stand-in error";
    return 0;
}

int cuMemGetAllocationGranularity(size_t *bytes, const void *properties, int option) {
    (void)properties, (void)option;
    *bytes = 2 << 20;
    return 0;
}
int cuMemCreate(uint64_t *handle, size_t bytes, const void *properties, unsigned long long flags) {
    (void)properties, (void)flags;
    if (bytes > (size_t)1 << 30) return 2;
    int file = memfd_create("stand-in", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, (off_t)bytes)) return 2;
    *handle = (uint64_t)file;
    return 0;
}
int cuMemRelease(uint64_t handle) { return close((int)handle) ? INVALID : 0; }
int cuMemExportToShareableHandle(void *out, uint64_t handle, int type, unsigned long long flags) {
    (void)flags;
    *(int *)out = dup((int)handle);
    return type == 1 ? 0 : INVALID;
}
int cuMemImportFromShareableHandle(uint64_t *handle, void *descriptor, int type) {
    int file = dup((int)(uintptr_t)descriptor);
    *handle = (uint64_t)file;
    return type == 1 && file >= 0 ? 0 : INVALID;
}
int cuMemAddressReserve(uint64_t *address, size_t bytes, size_t alignment, uint64_t at, unsigned long long flags) {
    (void)alignment, (void)at, (void)flags;
    void *place = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *address = (uint64_t)(uintptr_t)place;
    return place == MAP_FAILED ? 2 : 0;
}
int cuMemAddressFree(uint64_t address, size_t bytes) { return munmap((void *)(uintptr_t)address, bytes) ? INVALID : 0; }
int cuMemMap(uint64_t address, size_t bytes, size_t offset, uint64_t handle, unsigned long long flags) {
    (void)flags;
    void *place = mmap(
        (void *)(uintptr_t)address, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, (int)handle, (off_t)offset);
    return place == MAP_FAILED ? INVALID : 0;
}
int cuMemUnmap(uint64_t address, size_t bytes) {
    void *place = mmap(
        (void *)(uintptr_t)address, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    return place == MAP_FAILED ? INVALID : 0;
}
int cuMemSetAccess(uint64_t address, size_t bytes, const void *access, size_t count) {
    (void)address, (void)bytes, (void)access;
    return count == 1 ? 0 : INVALID;
}
typedef struct {
    char bytes[64];
} handle_t;
int cuIpcOpenMemHandle_v2(uint64_t *address, handle_t handle, unsigned flags) {
    memcpy(address, handle.bytes, sizeof *address);
    return flags == 1 ? 0 : INVALID;
}
int cuIpcCloseMemHandle(uint64_t address) { return address ? 0 : INVALID; }
int cuIpcOpenEventHandle(void **event, handle_t handle) {
    memcpy(event, handle.bytes, sizeof *event);
    return 0;
}
int cuMemHostRegister_v2(void *address, size_t bytes, unsigned flags) {
    registered += bytes;
    return address && flags == 1 ? 0 : INVALID;
}
int cuMemHostUnregister(void *address) { return address ? 0 : INVALID; }

static int is_ready(const op_t *op) {
    return op->kind != WAIT || ignores_waits || op->event->completed >= op->number;
}

static void *run(void *argument) {
    stream_t *stream = argument;
    pthread_mutex_lock(&lock);
    for (;;) {
        while ((stalls && !stream->ends) || stream->head == stream->tail || !is_ready(&stream->ops[stream->head % OPS])) {
            if (stream->ends) {
                pthread_mutex_unlock(&lock);
                return NULL;
            }
            pthread_cond_wait(&moved, &lock);
        }
        op_t op = stream->ops[stream->head % OPS];
        pthread_mutex_unlock(&lock);
        if (op.kind == COPY) memcpy(op.to, op.from, op.bytes);
        pthread_mutex_lock(&lock);
        if (op.kind == RECORD && op.event->completed < op.number) op.event->completed = op.number;
        stream->head++;
        pthread_cond_broadcast(&moved);
    }
}

static int push(stream_t *stream, op_t op) {
    pthread_mutex_lock(&lock);
    int error = stream->tail - stream->head >= OPS ? INVALID : 0;
    if (!error) {
        if (op.kind == RECORD) op.number = ++op.event->recorded;
        if (op.kind == WAIT) op.number = op.event->recorded;
        stream->ops[stream->tail++ % OPS] = op;
    }
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
    return error;
}

int cuStreamCreate(void **stream, unsigned flags) {
    stream_t *made = calloc(1, sizeof *made);
    *stream = made;
    return flags == 1 && !pthread_create(&made->thread, NULL, run, made) ? 0 : INVALID;
}
int cuStreamDestroy_v2(void *stream) {
    stream_t *old = stream;
    set(&old->ends, 1);
    pthread_join(old->thread, NULL);
    free(old);
    return 0;
}
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    return flags ? INVALID : push(stream, (op_t){.kind = WAIT, .event = event});
}
int cuEventCreate(void **event, unsigned flags) {
    *event = calloc(1, sizeof(event_t));
    return flags == 2 ? 0 : INVALID;
}
int cuEventDestroy_v2(void *event) {
    free(event);
    return 0;
}
int cuEventRecord(void *event, void *stream) { return push(stream, (op_t){.kind = RECORD, .event = event}); }
int cuEventQuery(void *event) {
    pthread_mutex_lock(&lock);
    int answer = ((event_t *)event)->completed >= ((event_t *)event)->recorded ? 0 : NOT_READY;
    pthread_mutex_unlock(&lock);
    return answer;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    if (copy_error) return copy_error;
    return push(stream, (op_t){.kind = COPY, .to = (void *)(uintptr_t)to, .from = from, .bytes = bytes});
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    if (copy_error) return copy_error;
    return push(stream, (op_t){.kind = COPY, .to = to, .from = (const void *)(uintptr_t)from, .bytes = bytes});
}
