#include "CCuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Types and numbers of the driver's interface, as its documentation gives them (CUDA Driver API reference: virtual memory
// management, IPC, streams, events). Handles are pointers there; they are numbers here.

typedef struct {
    int type; // 1: device
    int number;
} cu_location;

typedef struct {
    int type;    // 1: pinned
    int handles; // 1: POSIX file descriptor
    cu_location location;
    void *windows;
    struct {
        unsigned char compression, rdma;
        unsigned short usage;
        unsigned char reserved[4];
    } flags;
} cu_allocation;

typedef struct {
    cu_location location;
    int flags; // 3: read and write
} cu_access;

typedef struct {
    char bytes[64];
} cu_ipc_handle;

enum { KIND_NONE, KIND_VMM, KIND_IPC };

struct hf_cuda {
    void *library;
    int device;
    int has_context;
    void *context;
    uint64_t memory_bytes;
    char name[128];
    char pci[32];

    int (*init)(unsigned);
    int (*device_get)(int *, int);
    int (*device_get_name)(char *, int, int);
    int (*device_get_pci)(char *, int, int);
    int (*device_total_mem)(size_t *, int);
    int (*retain)(void **, int);
    int (*release)(int);
    int (*set_current)(void *);
    int (*get_error_string)(int, const char **);
    int (*mem_granularity)(size_t *, const cu_allocation *, int);
    int (*mem_create)(uint64_t *, size_t, const cu_allocation *, unsigned long long);
    int (*mem_release)(uint64_t);
    int (*mem_export)(void *, uint64_t, int, unsigned long long);
    int (*mem_import)(uint64_t *, void *, int);
    int (*address_reserve)(uint64_t *, size_t, size_t, uint64_t, unsigned long long);
    int (*address_free)(uint64_t, size_t);
    int (*mem_map)(uint64_t, size_t, size_t, uint64_t, unsigned long long);
    int (*mem_unmap)(uint64_t, size_t);
    int (*mem_set_access)(uint64_t, size_t, const cu_access *, size_t);
    int (*ipc_open_mem)(uint64_t *, cu_ipc_handle, unsigned);
    int (*ipc_close_mem)(uint64_t);
    int (*ipc_open_event)(void **, cu_ipc_handle);
    int (*host_register)(void *, size_t, unsigned);
    int (*host_unregister)(void *);
    int (*stream_create)(void **, unsigned);
    int (*stream_destroy)(void *);
    int (*stream_wait_event)(void *, void *, unsigned);
    int (*event_create)(void **, unsigned);
    int (*event_destroy)(void *);
    int (*event_record)(void *, void *);
    int (*event_query)(void *);
    int (*copy_to_device)(uint64_t, const void *, size_t, void *);
    int (*copy_to_host)(void *, uint64_t, size_t, void *);
};

static int find_functions(hf_cuda *cuda, char *why, size_t why_bytes) {
    struct {
        const char *name;
        void *place;
    } all[] = {
        {"cuInit", &cuda->init},
        {"cuDeviceGet", &cuda->device_get},
        {"cuDeviceGetName", &cuda->device_get_name},
        {"cuDeviceGetPCIBusId", &cuda->device_get_pci},
        {"cuDeviceTotalMem_v2", &cuda->device_total_mem},
        {"cuDevicePrimaryCtxRetain", &cuda->retain},
        {"cuDevicePrimaryCtxRelease_v2", &cuda->release},
        {"cuCtxSetCurrent", &cuda->set_current},
        {"cuGetErrorString", &cuda->get_error_string},
        {"cuMemGetAllocationGranularity", &cuda->mem_granularity},
        {"cuMemCreate", &cuda->mem_create},
        {"cuMemRelease", &cuda->mem_release},
        {"cuMemExportToShareableHandle", &cuda->mem_export},
        {"cuMemImportFromShareableHandle", &cuda->mem_import},
        {"cuMemAddressReserve", &cuda->address_reserve},
        {"cuMemAddressFree", &cuda->address_free},
        {"cuMemMap", &cuda->mem_map},
        {"cuMemUnmap", &cuda->mem_unmap},
        {"cuMemSetAccess", &cuda->mem_set_access},
        {"cuIpcOpenMemHandle_v2", &cuda->ipc_open_mem},
        {"cuIpcCloseMemHandle", &cuda->ipc_close_mem},
        {"cuIpcOpenEventHandle", &cuda->ipc_open_event},
        {"cuMemHostRegister_v2", &cuda->host_register},
        {"cuMemHostUnregister", &cuda->host_unregister},
        {"cuStreamCreate", &cuda->stream_create},
        {"cuStreamDestroy_v2", &cuda->stream_destroy},
        {"cuStreamWaitEvent", &cuda->stream_wait_event},
        {"cuEventCreate", &cuda->event_create},
        {"cuEventDestroy_v2", &cuda->event_destroy},
        {"cuEventRecord", &cuda->event_record},
        {"cuEventQuery", &cuda->event_query},
        {"cuMemcpyHtoDAsync_v2", &cuda->copy_to_device},
        {"cuMemcpyDtoHAsync_v2", &cuda->copy_to_host},
    };
    for (size_t index = 0; index < sizeof all / sizeof *all; index++) {
        void *found = dlsym(cuda->library, all[index].name);
        if (!found) {
            snprintf(why, why_bytes, "the driver has no %s: it is older than CUDA 11.3", all[index].name);
            return -1;
        }
        // The one way from an object's address to a function's that C allows.
        memcpy(all[index].place, &found, sizeof found);
    }
    return 0;
}

static int open_device(hf_cuda *cuda, int number, char *why, size_t why_bytes) {
    size_t bytes = 0;
    int error = cuda->init(0);
    if (!error) error = cuda->device_get(&cuda->device, number);
    if (!error) error = cuda->device_get_name(cuda->name, (int)sizeof cuda->name, cuda->device);
    if (!error) error = cuda->device_get_pci(cuda->pci, (int)sizeof cuda->pci, cuda->device);
    if (!error) error = cuda->device_total_mem(&bytes, cuda->device);
    if (!error) error = cuda->retain(&cuda->context, cuda->device);
    if (error) {
        snprintf(why, why_bytes, "GPU %d cannot be used: %s", number, hf_cuda_error(cuda, error));
        return error;
    }
    cuda->has_context = 1;
    cuda->memory_bytes = bytes;
    return 0;
}

int hf_cuda_open(const char *library, int number, hf_cuda **result, char *why, size_t why_bytes) {
    hf_cuda *cuda = calloc(1, sizeof *cuda);
    if (!cuda) {
        snprintf(why, why_bytes, "no memory");
        return -1;
    }
    cuda->library = dlopen(library ? library : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    int error = -1;
    if (!cuda->library) {
        snprintf(why, why_bytes, "there is no driver: %s", dlerror());
    } else {
        error = find_functions(cuda, why, why_bytes);
        if (!error) error = open_device(cuda, number, why, why_bytes);
    }
    if (error) {
        hf_cuda_close(cuda);
        return error;
    }
    *result = cuda;
    return 0;
}

void hf_cuda_close(hf_cuda *cuda) {
    if (cuda->has_context) cuda->release(cuda->device);
    if (cuda->library) dlclose(cuda->library);
    free(cuda);
}

int hf_cuda_enter(hf_cuda *cuda) { return cuda->set_current(cuda->context); }

const char *hf_cuda_name(const hf_cuda *cuda) { return cuda->name; }

const char *hf_cuda_pci(const hf_cuda *cuda) { return cuda->pci; }

uint64_t hf_cuda_memory_bytes(const hf_cuda *cuda) { return cuda->memory_bytes; }

const char *hf_cuda_error(const hf_cuda *cuda, int error) {
    const char *text = NULL;
    if (cuda->get_error_string(error, &text) || !text) text = "an error that the driver does not know";
    return text;
}

// Maps physical memory that `memory->handle` names. Lets go of everything when that fails.
static int map(hf_cuda *cuda, uint64_t bytes, hf_cuda_memory *memory) {
    cu_access access = {{1, cuda->device}, 3};
    uint64_t address = 0;
    int error = cuda->address_reserve(&address, bytes, 0, 0, 0);
    if (error) {
        cuda->mem_release(memory->handle);
        return error;
    }
    error = cuda->mem_map(address, bytes, 0, memory->handle, 0);
    if (!error) {
        error = cuda->mem_set_access(address, bytes, &access, 1);
        if (error) cuda->mem_unmap(address, bytes);
    }
    if (error) {
        cuda->address_free(address, bytes);
        cuda->mem_release(memory->handle);
        return error;
    }
    memory->address = memory->mapping = address;
    memory->bytes = memory->mapped_bytes = bytes;
    memory->kind = KIND_VMM;
    return 0;
}

static cu_allocation shareable(const hf_cuda *cuda) {
    return (cu_allocation){.type = 1, .handles = 1, .location = {1, cuda->device}};
}

// Memory comes in pieces: this many bytes are taken for so many.
static int round_up(hf_cuda *cuda, uint64_t *bytes) {
    cu_allocation allocation = shareable(cuda);
    size_t piece = 0;
    int error = cuda->mem_granularity(&piece, &allocation, 0);
    if (!error) *bytes = (*bytes + piece - 1) / piece * piece;
    return error;
}

int hf_cuda_make(hf_cuda *cuda, uint64_t bytes, hf_cuda_memory *memory, int *descriptor) {
    memset(memory, 0, sizeof *memory);
    cu_allocation allocation = shareable(cuda);
    int error = round_up(cuda, &bytes);
    if (error) return error;
    error = cuda->mem_create(&memory->handle, bytes, &allocation, 0);
    if (error) return error;
    error = map(cuda, bytes, memory);
    if (error) return error;
    error = cuda->mem_export(descriptor, memory->handle, 1, 0);
    if (error) hf_cuda_release(cuda, memory);
    return error;
}

int hf_cuda_import(hf_cuda *cuda, int descriptor, uint64_t bytes, hf_cuda_memory *memory) {
    memset(memory, 0, sizeof *memory);
    int error = round_up(cuda, &bytes);
    if (!error) error = cuda->mem_import(&memory->handle, (void *)(uintptr_t)descriptor, 1);
    return error ? error : map(cuda, bytes, memory);
}

int hf_cuda_import_ipc(
    hf_cuda *cuda, const uint8_t handle[64], uint64_t offset, uint64_t bytes, hf_cuda_memory *memory) {
    memset(memory, 0, sizeof *memory);
    cu_ipc_handle copy;
    memcpy(copy.bytes, handle, sizeof copy.bytes);
    // 1: peers of the device may be reached lazily, the only value there is.
    int error = cuda->ipc_open_mem(&memory->mapping, copy, 1);
    if (error) return error;
    memory->address = memory->mapping + offset;
    memory->bytes = bytes;
    memory->kind = KIND_IPC;
    return 0;
}

void hf_cuda_release(hf_cuda *cuda, hf_cuda_memory *memory) {
    if (memory->kind == KIND_VMM) {
        cuda->mem_unmap(memory->mapping, memory->mapped_bytes);
        cuda->address_free(memory->mapping, memory->mapped_bytes);
        cuda->mem_release(memory->handle);
    } else if (memory->kind == KIND_IPC) {
        cuda->ipc_close_mem(memory->mapping);
    }
    memory->kind = KIND_NONE;
}

// 1: registered for every context.
int hf_cuda_register(hf_cuda *cuda, void *address, size_t bytes) { return cuda->host_register(address, bytes, 1); }

int hf_cuda_unregister(hf_cuda *cuda, void *address) { return cuda->host_unregister(address); }

static void *pointer(uint64_t number) { return (void *)(uintptr_t)number; }

int hf_cuda_stream_make(hf_cuda *cuda, uint64_t *stream) {
    void *made = NULL;
    // 1: it does not wait for the default stream.
    int error = cuda->stream_create(&made, 1);
    *stream = (uint64_t)(uintptr_t)made;
    return error;
}

void hf_cuda_stream_release(hf_cuda *cuda, uint64_t stream) { cuda->stream_destroy(pointer(stream)); }

int hf_cuda_event_make(hf_cuda *cuda, uint64_t *event) {
    void *made = NULL;
    // 2: it takes no time, which would cost.
    int error = cuda->event_create(&made, 2);
    *event = (uint64_t)(uintptr_t)made;
    return error;
}

int hf_cuda_event_import(hf_cuda *cuda, const uint8_t handle[64], uint64_t *event) {
    cu_ipc_handle copy;
    memcpy(copy.bytes, handle, sizeof copy.bytes);
    void *made = NULL;
    int error = cuda->ipc_open_event(&made, copy);
    *event = (uint64_t)(uintptr_t)made;
    return error;
}

void hf_cuda_event_release(hf_cuda *cuda, uint64_t event) { cuda->event_destroy(pointer(event)); }

int hf_cuda_event_record(hf_cuda *cuda, uint64_t event, uint64_t stream) {
    return cuda->event_record(pointer(event), pointer(stream));
}

int hf_cuda_event_query(hf_cuda *cuda, uint64_t event) { return cuda->event_query(pointer(event)); }

int hf_cuda_stream_wait(hf_cuda *cuda, uint64_t stream, uint64_t event) {
    return cuda->stream_wait_event(pointer(stream), pointer(event), 0);
}

int hf_cuda_copy_to_device(hf_cuda *cuda, uint64_t stream, uint64_t to, const void *from, size_t bytes) {
    return cuda->copy_to_device(to, from, bytes, pointer(stream));
}

int hf_cuda_copy_to_host(hf_cuda *cuda, uint64_t stream, void *to, uint64_t from, size_t bytes) {
    return cuda->copy_to_host(to, from, bytes, pointer(stream));
}
