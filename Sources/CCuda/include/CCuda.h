// NVIDIA's driver, opened at run time: nothing of it is needed to build, and a machine without it gets one sentence.
// Functions return 0, or the driver's own error number (> 0), unless they say otherwise. Everything but `hf_cuda_open`
// works in the device's primary context, which is the one that CUDA's runtime and PyTorch use in the same process; each thread says
// `hf_cuda_enter` first. Addresses are the device's, as 64-bit numbers; streams and events are opaque numbers.
#ifndef HOLDFAST_CCUDA_H
#define HOLDFAST_CCUDA_H

#include <stddef.h>
#include <stdint.h>

typedef struct hf_cuda hf_cuda; // the driver, one device, its primary context

/// Opens `library` (NULL: libcuda.so.1) and the device with this number. On failure returns the driver's error, or -1 when there is
/// no driver or it lacks a function, and says why.
int hf_cuda_open(const char *library, int number, hf_cuda **cuda, char *why, size_t why_bytes);
/// Lets the context go. What was made in it must be gone.
void hf_cuda_close(hf_cuda *cuda);
/// Makes the context current on the calling thread.
int hf_cuda_enter(hf_cuda *cuda);
/// The device's name, its place on the PCI bus (0000:3B:00.0), and its memory in bytes.
const char *hf_cuda_name(const hf_cuda *cuda);
const char *hf_cuda_pci(const hf_cuda *cuda);
uint64_t hf_cuda_memory_bytes(const hf_cuda *cuda);
/// What an error number means, in the driver's words.
const char *hf_cuda_error(const hf_cuda *cuda, int error);

// --- memory of the device

typedef struct {
    uint64_t address; // of the first byte
    uint64_t bytes;
    uint64_t mapping; // what was mapped, and how much: may begin before `address`
    uint64_t mapped_bytes;
    uint64_t handle; // of the physical memory
    int kind;
} hf_cuda_memory;

/// New memory, at least so many bytes, that another process can map by its descriptor.
int hf_cuda_make(hf_cuda *cuda, uint64_t bytes, hf_cuda_memory *memory, int *descriptor);
/// Memory of another process, by its descriptor; `bytes` as it was made with.
int hf_cuda_import(hf_cuda *cuda, int descriptor, uint64_t bytes, hf_cuda_memory *memory);
/// Memory of another process that `cudaMalloc` made, by its 64-byte handle: `bytes` from `offset` on.
int hf_cuda_import_ipc(
    hf_cuda *cuda, const uint8_t handle[64], uint64_t offset, uint64_t bytes, hf_cuda_memory *memory);
/// Unmaps, and frees when nobody else has it.
void hf_cuda_release(hf_cuda *cuda, hf_cuda_memory *memory);

// --- memory of the host: copies from and to registered memory run beside everything else

int hf_cuda_register(hf_cuda *cuda, void *address, size_t bytes);
int hf_cuda_unregister(hf_cuda *cuda, void *address);

// --- streams, events, copies

int hf_cuda_stream_make(hf_cuda *cuda, uint64_t *stream);
void hf_cuda_stream_release(hf_cuda *cuda, uint64_t stream);
int hf_cuda_event_make(hf_cuda *cuda, uint64_t *event);
/// An event of another process (made for that), by its 64-byte handle.
int hf_cuda_event_import(hf_cuda *cuda, const uint8_t handle[64], uint64_t *event);
void hf_cuda_event_release(hf_cuda *cuda, uint64_t event);
int hf_cuda_event_record(hf_cuda *cuda, uint64_t event, uint64_t stream);
/// 0: everything before it is done; 600: not yet; else an error.
int hf_cuda_event_query(hf_cuda *cuda, uint64_t event);
/// What comes on the stream from now on waits for the event as it was last recorded.
int hf_cuda_stream_wait(hf_cuda *cuda, uint64_t stream, uint64_t event);
int hf_cuda_copy_to_device(hf_cuda *cuda, uint64_t stream, uint64_t to, const void *from, size_t bytes);
int hf_cuda_copy_to_host(hf_cuda *cuda, uint64_t stream, void *to, uint64_t from, size_t bytes);

#define HF_CUDA_NOT_READY 600

// --- NVIDIA's management library, opened at run time too: what all GPUs of this machine do. It needs no context, and shares nothing
// with the driver above.

typedef struct hf_nvml hf_nvml;

/// Opens `library` (NULL: libnvidia-ml.so.1). On failure returns the library's error, or -1 when there is none, and says why.
int hf_nvml_open(const char *library, hf_nvml **nvml, char *why, size_t why_bytes);
void hf_nvml_close(hf_nvml *nvml);
/// How many GPUs there are.
int hf_nvml_count(const hf_nvml *nvml);
/// A GPU's name; empty when it does not say.
void hf_nvml_name(hf_nvml *nvml, int gpu, char *name, size_t name_bytes);
/// Percent of the last moments (up to a second) in which a kernel ran, and in which its memory was read or written; milliwatts, 0 when
/// it does not say. 0, or the library's error.
int hf_nvml_use(hf_nvml *nvml, int gpu, uint32_t *busy, uint32_t *memory, uint32_t *milliwatts);

#endif
