// What a processor can do and Swift has no word for: asking for memory before it is needed, and comparing a group of
// words at once. Every function is compiled into its caller; none keeps state or can fail.
#ifndef HOLDFAST_CPROCESSOR_H
#define HOLDFAST_CPROCESSOR_H

#include <stdint.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/// Asks for the line of memory at `address`, which is going to be read or written. Any address will do.
static inline void hf_will_use(const void *address) { __builtin_prefetch(address, 1, 3); }

/// Which of the eight words from `first` and of the eight from `second` equal `word`: a bit each, those of `first` lowest.
static inline uint32_t hf_equal_words(const uint32_t *first, const uint32_t *second, uint32_t word) {
#if defined(__SSE2__)
    const __m128i wanted = _mm_set1_epi32((int)word);
    const __m128i *low = (const __m128i *)first, *high = (const __m128i *)second;
    __m128i a = _mm_cmpeq_epi32(_mm_loadu_si128(low), wanted);
    __m128i b = _mm_cmpeq_epi32(_mm_loadu_si128(low + 1), wanted);
    __m128i c = _mm_cmpeq_epi32(_mm_loadu_si128(high), wanted);
    __m128i d = _mm_cmpeq_epi32(_mm_loadu_si128(high + 1), wanted);
    return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d)));
#elif defined(__aarch64__)
    static const uint16_t weights[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    const uint32x4_t wanted = vdupq_n_u32(word);
    const uint16x8_t bits = vld1q_u16(weights);
    uint16x8_t low = vcombine_u16(
        vmovn_u32(vceqq_u32(vld1q_u32(first), wanted)), vmovn_u32(vceqq_u32(vld1q_u32(first + 4), wanted)));
    uint16x8_t high = vcombine_u16(
        vmovn_u32(vceqq_u32(vld1q_u32(second), wanted)), vmovn_u32(vceqq_u32(vld1q_u32(second + 4), wanted)));
    return (uint32_t)vaddvq_u16(vandq_u16(low, bits)) | (uint32_t)vaddvq_u16(vandq_u16(high, bits)) << 8;
#else
    uint32_t equal = 0;
    for (int i = 0; i < 8; i++) {
        equal |= (uint32_t)(first[i] == word) << i | (uint32_t)(second[i] == word) << (i + 8);
    }
    return equal;
#endif
}

#endif
