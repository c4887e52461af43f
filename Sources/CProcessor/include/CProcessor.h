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

/// Which of the eight words from `words` on equal `word`: a bit each, the first one's lowest.
static inline uint32_t hf_equal_words(const uint32_t *words, uint32_t word) {
#if defined(__SSE2__)
    const __m128i wanted = _mm_set1_epi32((int)word);
    const __m128i *halves = (const __m128i *)words;
    __m128i low = _mm_cmpeq_epi32(_mm_loadu_si128(halves), wanted);
    __m128i high = _mm_cmpeq_epi32(_mm_loadu_si128(halves + 1), wanted);
    return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(_mm_packs_epi32(low, high), _mm_setzero_si128()));
#elif defined(__aarch64__)
    static const uint16_t weights[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    const uint32x4_t wanted = vdupq_n_u32(word);
    uint16x8_t equal = vcombine_u16(
        vmovn_u32(vceqq_u32(vld1q_u32(words), wanted)), vmovn_u32(vceqq_u32(vld1q_u32(words + 4), wanted)));
    return (uint32_t)vaddvq_u16(vandq_u16(equal, vld1q_u16(weights)));
#else
    uint32_t equal = 0;
    for (int i = 0; i < 8; i++) equal |= (uint32_t)(words[i] == word) << i;
    return equal;
#endif
}

#endif
