// Checksums: CRC-64/XZ for blocks, CRC32C (Castagnoli) for small headers. ISA-L does the work where it can be opened at
// run time; the portable twins agree with it to the bit.
#ifndef HOLDFAST_CCHECKSUM_H
#define HOLDFAST_CCHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/// Goes on from `crc` (0 at the start) over `count` bytes. "123456789" gives 995dc9bbdf1939fa.
uint64_t hf_crc64(uint64_t crc, const void *bytes, size_t count);
/// Goes on from `crc` (0 at the start). "123456789" gives e3069283.
uint32_t hf_crc32c(uint32_t crc, const void *bytes, size_t count);
/// Copies; a long block passes the cache (where the processor has AVX2 and the target begins at a multiple of 32).
void hf_copy(void *to, const void *from, size_t count);
/// Copies like `hf_copy` and goes on from `crc` over the source, in pieces that stay in the first-level cache between.
uint64_t hf_copy_crc64(uint64_t crc, void *to, const void *from, size_t count);

uint64_t hf_crc64_portable(uint64_t crc, const void *bytes, size_t count);
uint32_t hf_crc32c_portable(uint32_t crc, const void *bytes, size_t count);
/// 1 when ISA-L was found.
int hf_checksum_is_accelerated(void);

#endif
