#include "CChecksum.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

typedef uint64_t (*crc64_function)(uint64_t crc, const unsigned char *bytes, uint64_t count);
typedef unsigned int (*crc32_function)(unsigned char *bytes, int count, unsigned int crc);

static crc64_function library_crc64;
static crc32_function library_crc32c;
static uint64_t table64[8][256];
static uint32_t table32[8][256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void prepare(void) {
    // Reflected polynomials: ECMA-182 for CRC-64/XZ, Castagnoli for CRC32C. Table k advances a byte by k further bytes.
    for (int i = 0; i < 256; i++) {
        uint64_t wide = (uint64_t)i;
        uint32_t narrow = (uint32_t)i;
        for (int bit = 0; bit < 8; bit++) {
            wide = wide & 1 ? (wide >> 1) ^ 0xC96C5795D7870F42u : wide >> 1;
            narrow = narrow & 1 ? (narrow >> 1) ^ 0x82F63B78u : narrow >> 1;
        }
        table64[0][i] = wide;
        table32[0][i] = narrow;
    }
    for (int k = 1; k < 8; k++)
        for (int i = 0; i < 256; i++) {
            table64[k][i] = table64[0][table64[k - 1][i] & 255] ^ (table64[k - 1][i] >> 8);
            table32[k][i] = table32[0][table32[k - 1][i] & 255] ^ (table32[k - 1][i] >> 8);
        }
    void *library = dlopen("libisal.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    crc64_function wide;
    crc32_function narrow;
    *(void **)&wide = dlsym(library, "crc64_ecma_refl");
    *(void **)&narrow = dlsym(library, "crc32_iscsi");
    // A library that does not give the known answers is not used.
    if (wide && wide(0, (const unsigned char *)"123456789", 9) == 0x995dc9bbdf1939fau) library_crc64 = wide;
    if (narrow && ~narrow((unsigned char *)"123456789", 9, ~0u) == 0xe3069283u) library_crc32c = narrow;
}

uint64_t hf_crc64_portable(uint64_t crc, const void *bytes, size_t count) {
    pthread_once(&once, prepare);
    const unsigned char *at = bytes;
    crc = ~crc;
    for (; count >= 8; count -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        word ^= crc;
        crc = 0;
        for (int k = 0; k < 8; k++) crc ^= table64[7 - k][(word >> (8 * k)) & 255];
    }
    while (count--) crc = table64[0][(crc ^ *at++) & 255] ^ (crc >> 8);
    return ~crc;
}

uint32_t hf_crc32c_portable(uint32_t crc, const void *bytes, size_t count) {
    pthread_once(&once, prepare);
    const unsigned char *at = bytes;
    crc = ~crc;
    for (; count >= 8; count -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        word ^= crc;
        crc = 0;
        for (int k = 0; k < 8; k++) crc ^= table32[7 - k][(word >> (8 * k)) & 255];
    }
    while (count--) crc = table32[0][(crc ^ *at++) & 255] ^ (crc >> 8);
    return ~crc;
}

uint64_t hf_crc64(uint64_t crc, const void *bytes, size_t count) {
    pthread_once(&once, prepare);
    return library_crc64 ? library_crc64(crc, bytes, count) : hf_crc64_portable(crc, bytes, count);
}

uint32_t hf_crc32c(uint32_t crc, const void *bytes, size_t count) {
    pthread_once(&once, prepare);
    if (!library_crc32c) return hf_crc32c_portable(crc, bytes, count);
    // The library counts in int.
    for (; count > (1u << 30); count -= 1u << 30, bytes = (const char *)bytes + (1u << 30))
        crc = ~library_crc32c((unsigned char *)bytes, 1 << 30, ~crc);
    return ~library_crc32c((unsigned char *)bytes, (int)count, ~crc);
}

// Bytes of a block from this size on are not wanted in the copier's cache: they go past it (streaming stores), which
// saves reading the target's lines before they are overwritten.
static const size_t streamed_from = 64 << 10;

#if defined(__x86_64__)
#include <immintrin.h>

// `count` is a multiple of 128 and `to` of 32.
__attribute__((target("avx2"))) static void stream(char *to, const char *from, size_t count) {
    enum { ahead = 4096 };
    for (size_t at = 0; at < count; at += 128) {
        _mm_prefetch(from + at + ahead, _MM_HINT_T0);
        _mm_prefetch(from + at + ahead + 64, _MM_HINT_T0);
        __m256i a = _mm256_loadu_si256((const __m256i *)(from + at));
        __m256i b = _mm256_loadu_si256((const __m256i *)(from + at + 32));
        __m256i c = _mm256_loadu_si256((const __m256i *)(from + at + 64));
        __m256i d = _mm256_loadu_si256((const __m256i *)(from + at + 96));
        _mm256_stream_si256((__m256i *)(to + at), a);
        _mm256_stream_si256((__m256i *)(to + at + 32), b);
        _mm256_stream_si256((__m256i *)(to + at + 64), c);
        _mm256_stream_si256((__m256i *)(to + at + 96), d);
    }
}

static int can_stream(const void *to, size_t count) {
    return count >= streamed_from && (uintptr_t)to % 32 == 0 && __builtin_cpu_supports("avx2");
}

// Streaming stores pass other stores: whoever is told that the copy is done must see it.
static void end_stream(void) { _mm_sfence(); }
#else
static void stream(char *to, const char *from, size_t count) { memcpy(to, from, count); }
static int can_stream(const void *to, size_t count) { return to && count >= streamed_from && 0; }
static void end_stream(void) {}
#endif

void hf_copy(void *to, const void *from, size_t count) {
    if (!can_stream(to, count)) {
        memcpy(to, from, count);
        return;
    }
    size_t whole = count & ~(size_t)127;
    stream(to, from, whole);
    memcpy((char *)to + whole, (const char *)from + whole, count - whole);
    end_stream();
}

uint64_t hf_copy_crc64(uint64_t crc, void *to, const void *from, size_t count) {
    if (can_stream(to, count)) {
        // The checksum is taken of the source's bytes while the copy has left them in the cache nearest to it.
        enum { streamed_piece = 4 << 10 };
        size_t whole = count & ~(size_t)127;
        for (size_t done = 0; done < whole; done += streamed_piece) {
            size_t part = whole - done < streamed_piece ? whole - done : streamed_piece;
            stream((char *)to + done, (const char *)from + done, part);
            crc = hf_crc64(crc, (const char *)from + done, part);
        }
        memcpy((char *)to + whole, (const char *)from + whole, count - whole);
        crc = hf_crc64(crc, (const char *)from + whole, count - whole);
        end_stream();
        return crc;
    }
    enum { piece = 16 << 10 };
    for (size_t done = 0; done < count; done += piece) {
        size_t part = count - done < piece ? count - done : piece;
        memcpy((char *)to + done, (const char *)from + done, part);
        crc = hf_crc64(crc, (const char *)to + done, part);
    }
    return crc;
}

int hf_checksum_is_accelerated(void) {
    pthread_once(&once, prepare);
    return library_crc64 && library_crc32c;
}
