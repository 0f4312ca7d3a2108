/* The interface of the decoding kernel. structures.py (and sti/codec/pieces.py for pieces and shards)
mirror the structures here.

Bytes are laid out as sti/codec/codebook.py and FORMAT.md say; NumPy code in sti/codec/decoder.py is
the specification. The library needs nothing else: no C library, no Python, no memory of its own.
All functions may run in several threads at once, on different slices. */

#ifndef STI_CODEC_H
#define STI_CODEC_H

#include <stdint.h>

#define STI_ABI 2

#define STI_LEVELS 7 /* fidelities at most: 2, 3, .., 8 bits */
#define STI_FIELDS 4 /* of two bits each: a code has 8 at most */
#define STI_RECORD 1024
#define STI_SEGMENT 65536

/* What a processor can do, and what a decoder is to use of it. */
enum {
    STI_SSSE3 = 1,
    STI_AVX2 = 2,  /* implies STI_SSSE3 */
    STI_CLMUL = 4, /* CRC-32 by carry-less products */
    STI_NEON = 8,
    STI_ARM_CRC = 16,    /* CRC-32 instructions of aarch64 */
    STI_WIDE_CLMUL = 32 /* two carry-less products at once; implies STI_AVX2 and STI_CLMUL */
};

enum { STI_CHECK = 1 }; /* flags: compare checksums */

enum { STI_FINE = 0, STI_FAULTY = 1, STI_MISUSED = -1 }; /* what sti_decode and sti_rows return */

enum { STI_BAD_CHECKSUM = 1, STI_BAD_SIZE = 2, STI_BAD_BOUNDS = 3, STI_BAD_OUTLIERS = 4 };

/* In what follows, `zero` fills a structure up to its alignment; nothing reads it. */

/* Length bytes at starts[part] + start of the data. */
struct sti_piece {
    uint32_t part, length;
    uint64_t start;
    uint32_t checksum, zero;
};

/* One shard: pieces[0] is its list of outliers, pieces[1] .. pieces[planes] its first planes. */
struct sti_shard {
    uint32_t row, planes;
    struct sti_piece pieces[1 + STI_LEVELS];
};

/* A matrix of bytes at `at` that holds one operand of all slices in use. Of each slice it has `parts`
   matrices of rows x columns, together a multiple of 8 weights: all of them side by side, so that a
   row of the matrix has slices * parts * columns bytes (STI_COLUMNS), or one below the other
   (STI_ROWS). */
enum { STI_ROWS = 0, STI_COLUMNS = 1 };
struct sti_operand {
    uint8_t *at;
    uint32_t slices, parts, rows, columns, joined, zero;
};

/* A component: bits of a plane's record that begin start * n / 8 bytes into it (n weights). */
struct sti_source {
    uint8_t plane, start;
};

/* How a fidelity decodes. The components of its planes are joined to fields of two bits: a two-bit
   component, two one-bit components, or one. Fields 0 and 1 are the first four-bit index, fields 2
   and 3 (or 0 and 2, if there are three) the second one. */
enum { STI_TWO = 1, STI_ONES = 2, STI_ONE = 3 };
enum {
    STI_LOOK_ONCE = 0, /* weight = head[first index]; of one field f: head[4 f + any], tail[f + 4 any] */
    STI_LOOK_SUM = 1,  /* weight = head[first] + tail[second] */
    STI_LOOK_TABLE = 2 /* weight = table[16 first + second], which holds for STI_LOOK_SUM too */
};
struct sti_level {
    uint8_t fields, look, zero[2];
    uint8_t kinds[STI_FIELDS];
    struct sti_source from[STI_FIELDS][2];
    uint8_t head[16], tail[16], table[256];
};

/* A codebook. Trusted, unlike all data: the caller makes it. */
struct sti_code {
    uint32_t features, levels;
    uint8_t exact[256];             /* how each int8 value of a list of outliers is written */
    uint8_t widths[STI_LEVELS + 1]; /* bits of each plane */
    struct sti_level level[STI_LEVELS];
};

struct sti_fault {
    uint32_t row, piece, what;
};

#if defined(__GNUC__)
#define STI_API __attribute__((visibility("default")))
#else
#define STI_API
#endif

/* The version of this interface. */
STI_API uint32_t sti_abi(void);

/* What can be used here. STI_ARM_CRC is never set: the caller asks the system. */
STI_API uint32_t sti_features(void);

/* Go on with the CRC-32 of zlib: of nothing it is 0. */
STI_API uint32_t sti_crc32(const uint8_t *data, uint64_t length, uint32_t crc, uint32_t features);

/* Decode shards, each into its slice of all operands.

   All pieces of a shard are checked before any of its weights is written; shards before a faulty one
   are written. Checked of each piece, in this order: that it lies in the data, that it fits the shard,
   its checksum (STI_CHECK), and that the list of outliers is in order. Nothing is ever written outside of the operands. Returns STI_FAULTY and fills `fault` at the first
   fault, and STI_MISUSED for arguments that no data can cause. */
STI_API int32_t sti_decode(const struct sti_code *code, const uint8_t *data, uint64_t data_bytes,
                           const uint64_t *starts, uint32_t start_count,
                           const struct sti_shard *shards, uint32_t shard_count,
                           const struct sti_operand *operands, uint32_t operand_count,
                           uint32_t flags, struct sti_fault *fault);

/* Decode rows of a word table, `count` times `row_bytes` bytes at `raw`, to float [count][hidden].
   Returns STI_FAULTY and the place of the first row that does not match its checksum. */
STI_API int32_t sti_rows(const uint8_t *raw, uint64_t raw_bytes, uint32_t row_bytes,
                         const int64_t *ids, uint64_t count, uint32_t hidden, uint32_t group,
                         float *out, uint32_t flags, uint32_t features, uint64_t *bad);

#endif
