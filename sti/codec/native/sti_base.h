/* What all parts of the kernel need: headers, attributes, bytes in little-endian order. Included by the
   kernel's own files alone; sti_codec.h is the interface. */

#ifndef STI_BASE_H
#define STI_BASE_H

#include "sti_codec.h"

#include <stddef.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__AARCH64EL__)
#include <arm_acle.h>
#include <arm_neon.h>
#define ARM_PATHS 1
#endif

#define INLINE static inline __attribute__((always_inline))
#define FOR_CPU(names) __attribute__((target(names)))

#if defined(__x86_64__)
#define LOAD128(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
INLINE uint32_t u16_at(const uint8_t *p)
{
    uint16_t found;
    __builtin_memcpy(&found, p, 2);
    return found;
}
#else
INLINE uint32_t u16_at(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8;
}
#endif

INLINE uint32_t u32_at(const uint8_t *p)
{
    return u16_at(p) | u16_at(p + 2) << 16;
}

#endif
