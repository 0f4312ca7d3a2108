/* CRC-32 as in zlib, by whatever the processor offers. Included by sti_codec.c alone. */

#ifndef STI_CRC_H
#define STI_CRC_H

#include "sti_base.h"

/* The functions below take and return the complement of a checksum. */

/* CRC[k][n] is the CRC of byte n followed by k zero bytes. It is linear in n, so eight values per k
   suffice: those of the powers of two. */
#define ENTRY(n, a, b, c, d, e, f, g, h)                                                          \
    ((n)&1 ? a : 0) ^ ((n)&2 ? b : 0) ^ ((n)&4 ? c : 0) ^ ((n)&8 ? d : 0) ^ ((n)&16 ? e : 0) ^     \
        ((n)&32 ? f : 0) ^ ((n)&64 ? g : 0) ^ ((n)&128 ? h : 0)
#define ENTRIES4(n, ...)                                                                          \
    ENTRY(n, __VA_ARGS__), ENTRY(n + 1, __VA_ARGS__), ENTRY(n + 2, __VA_ARGS__),                   \
        ENTRY(n + 3, __VA_ARGS__)
#define ENTRIES16(n, ...)                                                                         \
    ENTRIES4(n, __VA_ARGS__), ENTRIES4(n + 4, __VA_ARGS__), ENTRIES4(n + 8, __VA_ARGS__),          \
        ENTRIES4(n + 12, __VA_ARGS__)
#define ENTRIES64(n, ...)                                                                         \
    ENTRIES16(n, __VA_ARGS__), ENTRIES16(n + 16, __VA_ARGS__), ENTRIES16(n + 32, __VA_ARGS__),     \
        ENTRIES16(n + 48, __VA_ARGS__)
#define PLACE(...)                                                                                \
    {                                                                                             \
        ENTRIES64(0, __VA_ARGS__), ENTRIES64(64, __VA_ARGS__), ENTRIES64(128, __VA_ARGS__),        \
            ENTRIES64(192, __VA_ARGS__)                                                           \
    }
static const uint32_t CRC[8][256] = {
    PLACE(0x77073096, 0xee0e612c, 0x076dc419, 0x0edb8832, 0x1db71064, 0x3b6e20c8, 0x76dc4190, 0xedb88320),
    PLACE(0x191b3141, 0x32366282, 0x646cc504, 0xc8d98a08, 0x4ac21251, 0x958424a2, 0xf0794f05, 0x3b83984b),
    PLACE(0x01c26a37, 0x0384d46e, 0x0709a8dc, 0x0e1351b8, 0x1c26a370, 0x384d46e0, 0x709a8dc0, 0xe1351b80),
    PLACE(0xb8bc6765, 0xaa09c88b, 0x8f629757, 0xc5b428ef, 0x5019579f, 0xa032af3e, 0x9b14583d, 0xed59b63b),
    PLACE(0x3d6029b0, 0x7ac05360, 0xf580a6c0, 0x30704bc1, 0x60e09782, 0xc1c12f04, 0x58f35849, 0xb1e6b092),
    PLACE(0xcb5cd3a5, 0x4dc8a10b, 0x9b914216, 0xec53826d, 0x03d6029b, 0x07ac0536, 0x0f580a6c, 0x1eb014d8),
    PLACE(0xa6770bb4, 0x979f1129, 0xf44f2413, 0x33ef4e67, 0x67de9cce, 0xcfbd399c, 0x440b7579, 0x8816eaf2),
    PLACE(0xccaa009e, 0x4225077d, 0x844a0efa, 0xd3e51bb5, 0x7cbb312b, 0xf9766256, 0x299dc2ed, 0x533b85da),
};

static uint32_t crc_by_table(const uint8_t *p, uint64_t length, uint32_t crc)
{
    for (; length >= 8; p += 8, length -= 8) {
        uint32_t low = crc ^ u32_at(p), high = u32_at(p + 4);
        crc = CRC[7][low & 255] ^ CRC[6][low >> 8 & 255] ^ CRC[5][low >> 16 & 255] ^ CRC[4][low >> 24] ^
              CRC[3][high & 255] ^ CRC[2][high >> 8 & 255] ^ CRC[1][high >> 16 & 255] ^ CRC[0][high >> 24];
    }
    for (; length; length--)
        crc = CRC[0][(crc ^ *p++) & 255] ^ crc >> 8;
    return crc;
}

#if defined(__x86_64__)

/* x moved on by as many bits as the constants stand for, plus what is there. */
INLINE FOR_CPU("pclmul,sse4.1") __m128i fold(__m128i x, __m128i by, __m128i there)
{
    __m128i low = _mm_clmulepi64_si128(x, by, 0x00), high = _mm_clmulepi64_si128(x, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), there);
}

/* By products of 64 bits: lanes are moved on by multiples of x^n mod P until the last 16 bytes, whose
   remainder is left to the table (Gopal et al., "Fast CRC computation for generic polynomials using
   PCLMULQDQ"). Constants: x^(n + 32) and x^(n - 32) mod P for n bits, bits reversed. */
#define BY(n_plus, n_minus) _mm_set_epi64x(n_minus, n_plus)
#define BY_1024 BY(0x1e88ef372, 0x14a7fe880)
#define BY_512 BY(0x154442bd4, 0x1c6e41596)
#define BY_256 BY(0x0f1da05aa, 0x15a546366)
#define BY_128 BY(0x1751997d0, 0x0ccaa009e)

/* The remainder of x and of what is left after it. */
static FOR_CPU("pclmul,sse4.1") uint32_t crc_end(__m128i x, const uint8_t *p, uint64_t length)
{
    for (; length >= 16; p += 16, length -= 16)
        x = fold(x, BY_128, LOAD128(p));
    uint8_t rest[16];
    _mm_storeu_si128((__m128i *)(void *)rest, x);
    return crc_by_table(p, length, crc_by_table(rest, 16, 0));
}

/* At least 64 bytes, in four lanes of 16. */
static FOR_CPU("pclmul,sse4.1") uint32_t crc_by_products(const uint8_t *p, uint64_t length, uint32_t crc)
{
    __m128i a = _mm_xor_si128(LOAD128(p), _mm_cvtsi32_si128((int)crc));
    __m128i b = LOAD128(p + 16), c = LOAD128(p + 32), d = LOAD128(p + 48);
    for (p += 64, length -= 64; length >= 64; p += 64, length -= 64) {
        a = fold(a, BY_512, LOAD128(p));
        b = fold(b, BY_512, LOAD128(p + 16));
        c = fold(c, BY_512, LOAD128(p + 32));
        d = fold(d, BY_512, LOAD128(p + 48));
    }
    return crc_end(fold(fold(fold(a, BY_128, b), BY_128, c), BY_128, d), p, length);
}

#define WIDE FOR_CPU("avx2,pclmul,vpclmulqdq")
#define LOAD256(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))

INLINE WIDE __m256i fold_wide(__m256i x, __m128i by, __m256i there)
{
    __m256i both = _mm256_broadcastsi128_si256(by);
    __m256i low = _mm256_clmulepi64_epi128(x, both, 0x00);
    __m256i high = _mm256_clmulepi64_epi128(x, both, 0x11);
    return _mm256_xor_si256(_mm256_xor_si256(low, high), there);
}

/* At least 128 bytes, in four lanes of 32. */
static WIDE uint32_t crc_by_wide_products(const uint8_t *p, uint64_t length, uint32_t crc)
{
    __m256i start = _mm256_inserti128_si256(_mm256_setzero_si256(), _mm_cvtsi32_si128((int)crc), 0);
    __m256i a = _mm256_xor_si256(LOAD256(p), start), b = LOAD256(p + 32);
    __m256i c = LOAD256(p + 64), d = LOAD256(p + 96);
    for (p += 128, length -= 128; length >= 128; p += 128, length -= 128) {
        a = fold_wide(a, BY_1024, LOAD256(p));
        b = fold_wide(b, BY_1024, LOAD256(p + 32));
        c = fold_wide(c, BY_1024, LOAD256(p + 64));
        d = fold_wide(d, BY_1024, LOAD256(p + 96));
    }
    a = fold_wide(fold_wide(fold_wide(a, BY_256, b), BY_256, c), BY_256, d);
    __m128i low = _mm256_castsi256_si128(a), high = _mm256_extracti128_si256(a, 1);
    return crc_end(fold(low, BY_128, high), p, length);
}

#elif defined(ARM_PATHS)

#if defined(__clang__)
#define CRC_CPU FOR_CPU("crc")
#else
#define CRC_CPU FOR_CPU("+crc")
#endif

static CRC_CPU uint32_t crc_by_instructions(const uint8_t *p, uint64_t length, uint32_t crc)
{
    for (; length >= 8; p += 8, length -= 8)
        crc = __crc32d(crc, u32_at(p) | (uint64_t)u32_at(p + 4) << 32);
    for (; length; length--)
        crc = __crc32b(crc, *p++);
    return crc;
}

#endif

uint32_t sti_crc32(const uint8_t *data, uint64_t length, uint32_t crc, uint32_t features)
{
    (void)features;
#if defined(__x86_64__)
    if (features & STI_WIDE_CLMUL && length >= 256)
        return ~crc_by_wide_products(data, length, ~crc);
    if (features & STI_CLMUL && length >= 64)
        return ~crc_by_products(data, length, ~crc);
#elif defined(ARM_PATHS)
    if (features & STI_ARM_CRC)
        return ~crc_by_instructions(data, length, ~crc);
#endif
    return ~crc_by_table(data, length, ~crc);
}

#endif
