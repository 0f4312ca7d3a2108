/* The decoding kernel: slice groups as stored to weights, and rows of word tables to floats.

See sti_codec.h for what goes in and out. Freestanding C11 for gcc and clang, without any library.
One library holds all paths of an architecture; the caller says which of them to use. In this file:
records to weights (by sti_record.h, once for each width of vector), outliers, shards, word rows. */

#include "sti_codec.h"
#include "sti_base.h"
#include "sti_crc.h"

/* ---- what there is ---- */

uint32_t sti_abi(void)
{
    return STI_ABI;
}

uint32_t sti_features(void)
{
    uint32_t found = 0;
#if defined(__x86_64__)
    unsigned a, b, c, d, enabled, ignored;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return 0;
    if (c & bit_SSSE3)
        found |= STI_SSSE3;
    if (c & bit_PCLMUL && c & bit_SSE4_1)
        found |= STI_CLMUL;
    if (found & STI_SSSE3 && c & bit_OSXSAVE && c & bit_AVX) {
        __asm__ volatile("xgetbv" : "=a"(enabled), "=d"(ignored) : "c"(0));
        if ((enabled & 6) == 6 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & bit_AVX2)
            found |= STI_AVX2; /* the system keeps the wide registers */
        if (found & STI_AVX2 && found & STI_CLMUL && c & 1 << 10)
            found |= STI_WIDE_CLMUL;
    }
#elif defined(ARM_PATHS)
    found |= STI_NEON;
#endif
    return found;
}

/* ---- records to weights: one function for each width ---- */

/* Records of equal size, one after another: where the components of each field begin, and how far
   they are apart. */
struct span {
    uint8_t *out;
    uint64_t count;
    size_t eighth; /* weights of a record / 8 */
    const uint8_t *at[STI_FIELDS][2];
    size_t apart[STI_FIELDS][2];
};

#define NAME(x) x##_1
#define TARGET
#define V uint8_t
#define WIDTH 1
#define LOAD(p) (*(p))
#define STORE(p, v) (*(p) = (uint8_t)(v))
#define BYTES(b) ((uint8_t)(b))
#define LEFT(v, k) ((uint8_t)((v) << (k)))
#define RIGHT(v, k) ((uint8_t)((v) >> (k)))
#include "sti_record.h"

INLINE uint64_t load_8(const uint8_t *p)
{
    uint64_t found;
    __builtin_memcpy(&found, p, 8);
    return found;
}

INLINE void store_8(uint8_t *p, uint64_t v)
{
    __builtin_memcpy(p, &v, 8);
}

#define NAME(x) x##_8
#define TARGET
#define V uint64_t
#define WIDTH 8
#define LOAD(p) load_8(p)
#define STORE(p, v) store_8(p, v)
#define BYTES(b) ((b)*UINT64_C(0x0101010101010101))
#define LEFT(v, k) ((v) << (k))
#define RIGHT(v, k) ((v) >> (k))
#include "sti_record.h"

#if defined(__x86_64__) || defined(ARM_PATHS)

typedef uint8_t v16 __attribute__((vector_size(16)));
typedef uint16_t v16_pairs __attribute__((vector_size(16)));

#define NAME(x) x##_16
#define V v16
#define WIDTH 16
#define LEFT(v, k) ((v16)((v16_pairs)(v) << (k)))
#define RIGHT(v, k) ((v16)((v16_pairs)(v) >> (k)))
#if defined(__x86_64__)
#define TARGET FOR_CPU("ssse3")
#define LOAD(p) ((v16)LOAD128(p))
#define STORE(p, v) _mm_storeu_si128((__m128i *)(void *)(p), (__m128i)(v))
#define BYTES(b) ((v16)_mm_set1_epi8((char)(b)))
#define LOOK(table, v) ((v16)_mm_shuffle_epi8((__m128i)(table), (__m128i)(v)))
#else
#define TARGET
#define LOAD(p) ((v16)vld1q_u8(p))
#define STORE(p, v) vst1q_u8(p, (uint8x16_t)(v))
#define BYTES(b) ((v16)vdupq_n_u8(b))
#define LOOK(table, v) ((v16)vqtbl1q_u8((uint8x16_t)(table), (uint8x16_t)(v)))
#endif
#define TABLE(p) LOAD(p)
#include "sti_record.h"

#endif

#if defined(__x86_64__)

typedef uint8_t v32 __attribute__((vector_size(32)));
typedef uint16_t v32_pairs __attribute__((vector_size(32)));

#define NAME(x) x##_32
#define TARGET FOR_CPU("avx2")
#define V v32
#define WIDTH 32
#define LOAD(p) ((v32)_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), (__m256i)(v))
#define BYTES(b) ((v32)_mm256_set1_epi8((char)(b)))
#define LEFT(v, k) ((v32)((v32_pairs)(v) << (k)))
#define RIGHT(v, k) ((v32)((v32_pairs)(v) >> (k)))
#define LOOK(table, v) ((v32)_mm256_shuffle_epi8((__m256i)(table), (__m256i)(v)))
#define TABLE(p) ((v32)_mm256_broadcastsi128_si256(LOAD128(p)))
#include "sti_record.h"

#endif

/* The widest vectors that there are and that fit a record; one byte fits any. */
static void decode_span(uint32_t features, const struct sti_level *level, const struct span *span)
{
    (void)features;
#if defined(__x86_64__)
    if (features & STI_AVX2 && span->eighth >= 32)
        decode_32(level, span);
    else if (features & STI_SSSE3 && span->eighth >= 16)
        decode_16(level, span);
    else
#elif defined(ARM_PATHS)
    if (features & STI_NEON && span->eighth >= 16)
        decode_16(level, span);
    else
#endif
        if (span->eighth >= 8)
        decode_8(level, span);
    else
        decode_1(level, span);
}

/* ---- outliers: counts of all segments, then positions, then values ---- */

static uint64_t segments_of(uint64_t size)
{
    return size / STI_SEGMENT + (size % STI_SEGMENT != 0);
}

/* Weights of an operand in one shard; 0 for more than an operand may have. */
static uint64_t weights_of(const struct sti_operand *operand)
{
    uint64_t rows = (uint64_t)operand->parts * operand->rows;
    return rows > UINT32_MAX || rows * operand->columns > UINT32_MAX ? 0 : rows * operand->columns;
}

/* Bytes of the counts of a shard's list. */
static uint64_t head_of(const struct sti_operand *operands, uint32_t operand_count)
{
    uint64_t head = 0;
    for (uint32_t i = 0; i < operand_count; i++)
        head += 4 * segments_of(weights_of(&operands[i]));
    return head;
}

static uint64_t total_of(const uint8_t *list, uint64_t head)
{
    uint64_t total = 0;
    for (uint64_t at = 0; at < head; at += 4)
        total += u32_at(list + at);
    return total;
}

/* Whether a list fits the operands, so that it can be placed without further checks. */
static int outliers_fit(const uint8_t *list, uint64_t length, const struct sti_operand *operands,
                        uint32_t operand_count)
{
    const uint64_t head = head_of(operands, operand_count);
    if (length < head)
        return 0;
    const uint64_t total = total_of(list, head); /* below 2^62: of at most length / 4 counts */
    if (total > length || length != ((head + 3 * total + 3) & ~UINT64_C(3)))
        return 0;
    for (uint64_t at = head + 3 * total; at < length; at++)
        if (list[at])
            return 0;
    const uint8_t *position = list + head;
    for (uint32_t i = 0; i < operand_count; i++)
        for (uint64_t left = weights_of(&operands[i]); left; list += 4) {
            uint64_t size = left < STI_SEGMENT ? left : STI_SEGMENT;
            uint32_t count = u32_at(list), wrong = 0;
            for (uint32_t k = 1; k < count; k++)
                wrong |= u16_at(position + 2 * k) <= u16_at(position + 2 * k - 2);
            position += 2 * (uint64_t)count;
            if (wrong || (count && u16_at(position - 2) >= size))
                return 0;
            left -= size;
        }
    return 1;
}

/* Where in a list that fits the next outlier is. */
struct outliers {
    const uint8_t *count, *position, *value;
};

static struct outliers first_outlier(const uint8_t *list, const struct sti_operand *operands,
                                     uint32_t operand_count)
{
    const uint64_t head = head_of(operands, operand_count);
    const uint8_t *position = list + head;
    return (struct outliers){list, position, position + 2 * total_of(list, head)};
}

/* Place the outliers of positions from `begin` to below `end`, whose weights begin at `out`; `left`
   are left in the segment. */
INLINE uint32_t put_outliers(struct outliers *next, uint32_t left, uint64_t begin, uint64_t end,
                             uint8_t *out, const uint8_t *exact)
{
    /* Locals, because `out` might alias `*next`. */
    const uint8_t *position = next->position, *value = next->value;
    for (; left && u16_at(position) < end; left--, position += 2)
        out[u16_at(position) - begin] = exact[*value++];
    next->position = position, next->value = value;
    return left;
}

/* ---- shards ---- */

/* Records decoded before their outliers are placed: while both are in the nearest cache. A segment
   is a multiple. */
#define TILE (16 * STI_RECORD)

/* Decode `size` weights, whole records but for the last one. The first is number `place` of the
   shard, whose planes begin at `planes`. */
static void decode_weights(const struct sti_code *code, const struct sti_level *level,
                           const uint8_t *const *planes, uint64_t place, uint8_t *out, uint64_t size)
{
    for (uint64_t done = 0; done < size;) {
        uint64_t left = size - done, n = left < STI_RECORD ? left : STI_RECORD;
        struct span span;
        span.out = out + done;
        span.count = left / n;
        span.eighth = (size_t)n / 8;
        for (unsigned field = 0; field < level->fields; field++)
            for (unsigned part = 0; part < 2; part++) {
                struct sti_source from = level->from[field][part];
                size_t width = code->widths[from.plane];
                span.at[field][part] = planes[from.plane] + (place + done) / 8 * width +
                                       from.start * span.eighth;
                span.apart[field][part] = width * span.eighth;
            }
        decode_span(code->features, level, &span);
        done += span.count * n;
    }
}

/* Copy `count` rows of `size` bytes that lie together to rows that are `apart`. */
INLINE void copy_rows(uint8_t *to, uint64_t apart, const uint8_t *from, size_t size, uint64_t count)
{
    for (; count; count--, to += apart, from += size) {
        size_t i = 0;
        for (; i + 16 <= size; i += 16)
            __builtin_memcpy(to + i, from + i, 16);
        for (; i < size; i++)
            to[i] = from[i];
    }
}

/* As the function above, quickly for usual sizes of a head. */
static void copy_whole_rows(uint8_t *to, uint64_t apart, const uint8_t *from, size_t size,
                            uint64_t count)
{
    if (size == 32)
        copy_rows(to, apart, from, 32, count);
    else if (size == 64)
        copy_rows(to, apart, from, 64, count);
    else
        copy_rows(to, apart, from, size, count);
}

/* Copy decoded weights of a slice, the first of which is its number `done`, to their columns. */
static void to_columns(const struct sti_operand *operand, uint32_t slice, uint64_t done,
                       const uint8_t *from, uint64_t size)
{
    const uint64_t columns = operand->columns, rows = operand->rows;
    const uint64_t apart = (uint64_t)operand->slices * operand->parts * columns;
    while (size) {
        const uint64_t row = done / columns, column = done % columns, left = columns - column;
        const uint64_t part = (uint64_t)slice * operand->parts + row / rows, place = row % rows;
        uint8_t *to = operand->at + place * apart + part * columns + column;
        uint64_t copied = left < size ? left : size;
        if (column || copied < columns) {
            copy_rows(to, apart, from, copied, 1);
        } else {
            uint64_t count = size / columns < rows - place ? size / columns : rows - place;
            copy_whole_rows(to, apart, from, columns, count);
            copied = count * columns;
        }
        done += copied, from += copied, size -= copied;
    }
}

/* Decode one operand of a shard, whose first weight is number `place` of the shard. */
static void decode_operand(const struct sti_code *code, const struct sti_level *level,
                           const uint8_t *const *planes, uint64_t place,
                           const struct sti_operand *operand, uint32_t slice, struct outliers *next)
{
    const uint64_t size = weights_of(operand);
    const int joined = operand->joined == STI_COLUMNS && operand->slices * (uint64_t)operand->parts > 1;
    uint8_t near[TILE], *out = operand->at + slice * size;
    uint32_t left = 0;
    for (uint64_t done = 0; done < size; done += TILE) {
        uint64_t tile = size - done < TILE ? size - done : TILE, inside = done % STI_SEGMENT;
        uint8_t *to = joined ? near : out + done;
        if (!inside) {
            left = u32_at(next->count);
            next->count += 4;
        }
        decode_weights(code, level, planes, place + done, to, tile);
        left = put_outliers(next, left, inside, inside + tile, to, code->exact);
        if (joined)
            to_columns(operand, slice, done, near, tile);
    }
}

/* Check the pieces of a shard, lowest first; what is wrong with the one whose number is put in
   `number`, or 0. Fills `at` with where they are. */
static uint32_t check_shard(const struct sti_code *code, const uint8_t *data, uint64_t data_bytes,
                            const uint64_t *starts, uint32_t start_count, const struct sti_shard *shard,
                            const struct sti_operand *operands, uint32_t operand_count, uint64_t weights,
                            uint32_t flags, const uint8_t **at, uint32_t *number)
{
    for (uint32_t i = 0; i <= shard->planes; i++) {
        const struct sti_piece *piece = &shard->pieces[i];
        *number = i;
        if (piece->part >= start_count)
            return STI_BAD_BOUNDS;
        uint64_t base = starts[piece->part];
        if (base > data_bytes || piece->start > data_bytes - base ||
            piece->length > data_bytes - base - piece->start)
            return STI_BAD_BOUNDS;
        if (i && (uint64_t)piece->length != weights / 8 * code->widths[i - 1])
            return STI_BAD_SIZE;
        at[i] = data + base + piece->start;
        if (flags & STI_CHECK && sti_crc32(at[i], piece->length, 0, code->features) != piece->checksum)
            return STI_BAD_CHECKSUM;
        if (!i && !outliers_fit(at[0], piece->length, operands, operand_count))
            return STI_BAD_OUTLIERS;
    }
    return 0;
}

int32_t sti_decode(const struct sti_code *code, const uint8_t *data, uint64_t data_bytes,
                   const uint64_t *starts, uint32_t start_count, const struct sti_shard *shards,
                   uint32_t shard_count, const struct sti_operand *operands, uint32_t operand_count,
                   uint32_t flags, struct sti_fault *fault)
{
    uint64_t weights = 0, slices = UINT64_MAX;
    for (uint32_t i = 0; i < operand_count; i++) {
        const uint64_t size = weights_of(&operands[i]);
        if (!size || size % 8 || operands[i].joined > STI_COLUMNS)
            return STI_MISUSED;
        weights += size;
        slices = operands[i].slices < slices ? operands[i].slices : slices;
    }
    if (!operand_count)
        return STI_MISUSED;
    for (uint32_t s = 0; s < shard_count; s++)
        if (shards[s].row >= slices || shards[s].planes < 1 || shards[s].planes > code->levels)
            return STI_MISUSED;
    for (uint32_t s = 0; s < shard_count; s++) {
        const struct sti_shard *shard = &shards[s];
        const uint8_t *at[1 + STI_LEVELS];
        uint32_t piece = 0;
        uint32_t what = check_shard(code, data, data_bytes, starts, start_count, shard, operands,
                                    operand_count, weights, flags, at, &piece);
        if (what) {
            fault->row = shard->row, fault->piece = piece, fault->what = what;
            return STI_FAULTY;
        }
        const struct sti_level *level = &code->level[shard->planes - 1];
        struct outliers next = first_outlier(at[0], operands, operand_count);
        uint64_t place = 0;
        for (uint32_t i = 0; i < operand_count; i++) {
            decode_operand(code, level, at + 1, place, &operands[i], shard->row, &next);
            place += weights_of(&operands[i]);
        }
    }
    return STI_FINE;
}

/* ---- word rows: 4-bit codes, low halves first; then a scale for each group; then a checksum ---- */

/* A half float, exactly. */
static float half_at(const uint8_t *p)
{
    uint32_t half = u16_at(p), sign = (half & 0x8000) << 16, magnitude = half & 0x7fff;
    union {
        uint32_t bits;
        float value;
    } made;
    if (magnitude >= 0x7c00) { /* no number */
        made.bits = sign | 0x7f800000 | (magnitude & 0x3ff) << 13;
        return made.value;
    }
    made.bits = magnitude << 13;
    if (magnitude >= 0x0400) { /* another bias */
        made.bits += (127 - 15) << 23;
    } else { /* a multiple of the smallest one, 2^-24 */
        made.value = (float)magnitude * 0x1p-24f;
    }
    made.bits |= sign;
    return made.value;
}

int32_t sti_rows(const uint8_t *raw, uint64_t raw_bytes, uint32_t row_bytes, const int64_t *ids,
                 uint64_t count, uint32_t hidden, uint32_t group, float *out, uint32_t flags,
                 uint32_t features, uint64_t *bad)
{
    const uint64_t half = hidden / 2;
    if (!group || !hidden || hidden % 2 || hidden % group ||
        row_bytes != half + 2 * (uint64_t)(hidden / group) + 4 || count > raw_bytes / row_bytes)
        return STI_MISUSED;
    for (uint64_t row = 0; row < count; row++, raw += row_bytes, out += hidden) {
        if (flags & STI_CHECK) {
            uint8_t id[4];
            for (int i = 0; i < 4; i++)
                id[i] = (uint8_t)((uint64_t)ids[row] >> 8 * i);
            uint32_t crc = sti_crc32(id, 4, 0, features);
            crc = sti_crc32(raw, row_bytes - 4, crc, features);
            if (crc != u32_at(raw + row_bytes - 4)) {
                *bad = row;
                return STI_FAULTY;
            }
        }
        const uint8_t *scales = raw + half;
        for (uint64_t from = 0; from < hidden; from += group, scales += 2) {
            const float scale = half_at(scales);
            uint64_t at = from, to = from + group;
            for (; at < to && at < half; at++)
                out[at] = (float)((int)(raw[at] & 15) - 8) * scale;
            for (; at < to; at++)
                out[at] = (float)((int)(raw[at - half] >> 4) - 8) * scale;
        }
    }
    return STI_FINE;
}
