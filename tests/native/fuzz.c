/* Random and damaged groups and word rows for the kernel, to be run under sanitizers:

       cc -g -O1 -fsanitize=address,undefined -fno-sanitize-recover -I sti/codec/native -I tests/native \
          -o fuzz tests/native/fuzz.c sti/codec/native/sti_codec.c
       ./fuzz SECONDS [SEED ..]

   SECONDS are of processor time, shared by the seeds; without any, 1 is the seed.

   Whatever the bytes are: nothing around the operands may change, every path must find the same
   fault and write the same weights as the scalar one, and undamaged groups must decode; and so for
   word rows: the same row at fault, the same floats. All memory is of exactly the size that the
   kernel is told, so that a sanitizer sees any read or write beyond it. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sti_codec.h"
#include "vectors.h"

#define GUARD 96
#define MOST_OPERANDS 4
#define MOST_SHARDS 4
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static uint64_t state;
static struct sti_code codes[COUNT_OF(CODES)];

static uint64_t next_random(void) /* xorshift64* */
{
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return state * UINT64_C(2685821657736338717);
}

static uint32_t below(uint32_t limit)
{
    return (uint32_t)((next_random() >> 32) * limit >> 32);
}

static void fail(const char *what)
{
    fprintf(stderr, "fuzz: %s\n", what);
    abort();
}

struct group {
    const struct sti_code *code;
    uint8_t *data;
    uint64_t data_bytes, *starts;
    uint32_t start_count, shard_count, operand_count, flags;
    uint64_t sizes[MOST_OPERANDS]; /* weights of each operand in a shard */
    struct sti_operand operands[MOST_OPERANDS];
    struct sti_shard *shards;
};

static void put_u16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v, p[1] = (uint8_t)(v >> 8);
}

static uint64_t random_size(void)
{
    switch (below(8)) {
    case 0:
        return 65536 + 8 * (uint64_t)below(3000);
    case 1:
        return 1024 * (uint64_t)(1 + below(20));
    case 2:
        return 8 * (uint64_t)(1 + below(16));
    default:
        return 8 * (uint64_t)(1 + below(400));
    }
}

/* A number that divides `size`, 1 among them. */
static uint32_t divisor(uint64_t size)
{
    for (int k = 0; k < 8; k++) {
        uint32_t found = below(4) ? 8u << below(5) : 1 + below(70);
        if (size % found == 0)
            return found;
    }
    return 1;
}

/* A matrix for `slices` slices of `size` weights each, in parts, rows and columns as they come. */
static struct sti_operand make_operand(uint64_t size, uint32_t slices)
{
    struct sti_operand made = {.slices = slices, .parts = below(3) ? 1 : divisor(size), .joined = below(2)};
    size /= made.parts;
    made.columns = divisor(size);
    if (!below(3))
        made.columns = (uint32_t)size / made.columns;
    made.rows = (uint32_t)size / made.columns;
    return made;
}

/* A list of outliers that fits; returns its length. `p` may be null, to measure with the same seed. */
static uint64_t make_list(const struct group *g, uint8_t *p)
{
    uint64_t head = 0, total = 0, saved;
    uint32_t every = below(3) ? 2 + below(400) : 70000, counts[64], segment = 0;
    for (uint32_t i = 0; i < g->operand_count; i++)
        head += 4 * ((g->sizes[i] + 65535) / 65536);
    saved = state;
    for (int pass = 0; pass < 2; pass++) {
        uint64_t at = 0;
        state = saved, segment = 0;
        for (uint32_t i = 0; i < g->operand_count; i++)
            for (uint64_t start = 0; start < g->sizes[i]; start += 65536, segment++) {
                uint64_t size = g->sizes[i] - start < 65536 ? g->sizes[i] - start : 65536;
                counts[segment] = 0;
                for (uint64_t place = below(every); place < size; place += 1 + below(2 * every)) {
                    if (pass && p)
                        put_u16(p + head + 2 * at, (uint32_t)place);
                    at++, counts[segment]++;
                }
            }
        total = at;
    }
    uint64_t length = (head + 3 * total + 3) & ~UINT64_C(3);
    if (p) {
        for (uint32_t s = 0; s < segment; s++)
            put_u16(p + 4 * s, counts[s]), put_u16(p + 4 * s + 2, counts[s] >> 16);
        for (uint64_t k = 0; k < total; k++)
            p[head + 2 * total + k] = (uint8_t)next_random();
        memset(p + head + 3 * total, 0, length - head - 3 * total);
    }
    return length;
}

static void *sized(uint64_t bytes)
{
    void *made = malloc(bytes ? bytes : 1);
    if (!made)
        fail("out of memory");
    return made;
}

static void set_checksums(struct group *g)
{
    for (uint32_t s = 0; s < g->shard_count; s++)
        for (uint32_t i = 0; i <= STI_LEVELS; i++) {
            struct sti_piece *piece = &g->shards[s].pieces[i];
            if (piece->part >= g->start_count)
                continue;
            uint64_t base = g->starts[piece->part];
            if (base <= g->data_bytes && piece->start <= g->data_bytes - base &&
                piece->length <= g->data_bytes - base - piece->start)
                piece->checksum = sti_crc32(g->data + base + piece->start, piece->length, 0, 0);
        }
}

static struct group make_group(void)
{
    struct group g = {.code = &codes[below(COUNT_OF(CODES))]};
    uint64_t weights = 0, at = below(50);
    g.operand_count = 1 + below(MOST_OPERANDS);
    for (uint32_t i = 0; i < g.operand_count; i++)
        weights += g.sizes[i] = random_size();
    g.shard_count = 1 + below(MOST_SHARDS);
    const uint32_t slices = g.shard_count + below(2);
    for (uint32_t i = 0; i < g.operand_count; i++)
        g.operands[i] = make_operand(g.sizes[i], slices);
    g.start_count = g.shard_count;
    g.flags = below(4) ? STI_CHECK : 0;
    g.shards = sized(sizeof(struct sti_shard) * g.shard_count);
    g.starts = sized(sizeof(uint64_t) * g.start_count);
    memset(g.shards, 0, sizeof(struct sti_shard) * g.shard_count);
    uint64_t seeds[MOST_SHARDS];
    for (uint32_t s = 0; s < g.shard_count; s++) {
        struct sti_shard *shard = &g.shards[s];
        shard->row = g.shard_count - 1 - s; /* its slice */
        shard->planes = 1 + below(g.code->levels);
        g.starts[s] = at;
        for (uint32_t i = 0; i <= shard->planes; i++) {
            struct sti_piece *piece = &shard->pieces[i];
            piece->part = s;
            piece->start = at - g.starts[s];
            seeds[s] = i ? seeds[s] : state;
            piece->length = (uint32_t)(i ? weights / 8 * g.code->widths[i - 1] : make_list(&g, 0));
            at += piece->length;
        }
    }
    g.data_bytes = at;
    g.data = sized(at);
    for (uint64_t i = 0; i < at; i++)
        g.data[i] = (uint8_t)(next_random() >> 40);
    for (uint32_t s = 0; s < g.shard_count; s++) {
        state = seeds[s];
        make_list(&g, g.data + g.starts[s]);
    }
    state += 0x9E3779B97F4A7C15, state |= 1;
    set_checksums(&g);
    return g;
}

static const uint64_t EDGES[] = {0, 1, 3, 4, 7, 8, 255, 65535, 65536, UINT32_MAX, UINT64_MAX, UINT64_MAX - 7};

static uint64_t odd_number(uint64_t before)
{
    switch (below(4)) {
    case 0:
        return EDGES[below(COUNT_OF(EDGES))];
    case 1:
        return before + below(9) - 4;
    case 2:
        return before ^ UINT64_C(1) << below(64);
    default:
        return next_random();
    }
}

static void damage(struct group *g)
{
    struct sti_shard *shard = &g->shards[below(g->shard_count)];
    struct sti_piece *piece = &shard->pieces[below(3) ? below(shard->planes % 8 + 1) : 0];
    uint64_t at = g->starts[0] <= g->data_bytes ? g->starts[0] : 0;
    if (piece->part < g->start_count && g->starts[piece->part] < g->data_bytes)
        at = g->starts[piece->part];
    switch (below(10)) {
    case 0:
        piece->length = (uint32_t)odd_number(piece->length);
        break;
    case 1:
        piece->start = odd_number(piece->start);
        break;
    case 2:
        piece->part = (uint32_t)odd_number(piece->part);
        break;
    case 3:
        g->starts[below(g->start_count)] = odd_number(at);
        break;
    case 4:
        piece->checksum = (uint32_t)odd_number(piece->checksum);
        break;
    case 5:
        if (!below(4))
            shard->row = (uint32_t)odd_number(shard->row);
        if (!below(4))
            shard->planes = (uint32_t)odd_number(shard->planes);
        break;
    case 6: /* the end of the data is cut off */
        g->data_bytes -= below((uint32_t)g->data_bytes);
        g->data = realloc(g->data, g->data_bytes);
        if (!g->data)
            fail("out of memory");
        break;
    default: /* near the start of a list, or anywhere */
        if (g->data_bytes) {
            uint64_t left = g->data_bytes - at, near = left < 64 ? left : 64;
            at += near && below(2) ? below((uint32_t)near) : below((uint32_t)left);
            if (at < g->data_bytes)
                g->data[at] = (uint8_t)odd_number(g->data[at]);
        }
    }
}

/* Of all slices of an operand. */
static uint64_t bytes_of(const struct group *g, uint32_t operand)
{
    return g->sizes[operand] * g->operands[operand].slices;
}

/* Decode into memory with guards; what changed is checked here. */
static int32_t decode(const struct group *g, uint32_t features, uint8_t **memory, struct sti_fault *fault)
{
    struct sti_operand *operands = sized(sizeof(struct sti_operand) * g->operand_count);
    struct sti_code *code = sized(sizeof(struct sti_code));
    *code = *g->code;
    code->features = features;
    for (uint32_t i = 0; i < g->operand_count; i++) {
        uint64_t bytes = bytes_of(g, i);
        memory[i] = sized(bytes + 2 * GUARD);
        memset(memory[i], 0xA5, bytes + 2 * GUARD);
        operands[i] = g->operands[i];
        operands[i].at = memory[i] + GUARD;
    }
    memset(fault, 0, sizeof *fault);
    int32_t ended = sti_decode(code, g->data, g->data_bytes, g->starts, g->start_count, g->shards,
                               g->shard_count, operands, g->operand_count, g->flags, fault);
    for (uint32_t i = 0; i < g->operand_count; i++)
        for (int k = 0; k < GUARD; k++)
            if (memory[i][k] != 0xA5 || memory[i][GUARD + bytes_of(g, i) + k] != 0xA5)
                fail("wrote outside of an operand");
    free(operands), free(code);
    return ended;
}

static uint32_t some_features(void)
{
    uint32_t all = sti_features(), chosen = all & (uint32_t)next_random();
    if (chosen & STI_WIDE_CLMUL)
        chosen |= all & (STI_AVX2 | STI_CLMUL);
    if (chosen & STI_AVX2)
        chosen |= STI_SSSE3;
    return below(2) ? all : chosen;
}

static int try_group(void)
{
    struct group g = make_group();
    uint32_t wounds = below(4) ? below(4) : 0;
    uint8_t *wanted[MOST_OPERANDS], *found[MOST_OPERANDS];
    struct sti_fault first, second;
    for (uint32_t i = 0; i < wounds; i++)
        damage(&g);
    if (wounds && below(2))
        set_checksums(&g);
    int32_t ended = decode(&g, 0, wanted, &first);
    int32_t again = decode(&g, some_features(), found, &second);
    if (!wounds && ended != STI_FINE)
        fail("an undamaged group was refused");
    if (ended != again || memcmp(&first, &second, sizeof first))
        fail("paths find different faults");
    for (uint32_t i = 0; i < g.operand_count; i++) {
        if (memcmp(wanted[i], found[i], bytes_of(&g, i) + 2 * GUARD))
            fail("paths write different weights");
        free(wanted[i]), free(found[i]);
    }
    free(g.data), free(g.starts), free(g.shards);
    return ended == STI_FINE ? 0 : ended == STI_MISUSED ? 5 : (int)first.what;
}

/* The outcome: 0 fine, 1 faulty, 2 misused. */
static int try_rows(void)
{
    uint32_t group = 2 * (1 + below(20)), hidden = group * (1 + below(12)), count = below(5);
    uint32_t row_bytes = hidden / 2 + 2 * (hidden / group) + 4;
    uint64_t bytes = (uint64_t)row_bytes * count, floats = sizeof(float) * hidden * count, told = bytes;
    uint64_t bad[2] = {0, 0};
    int32_t ended[2];
    uint8_t *raw = sized(bytes);
    int64_t *ids = sized(sizeof(int64_t) * count);
    float *out[2] = {sized(floats), sized(floats)};
    for (uint64_t i = 0; i < bytes; i++)
        raw[i] = (uint8_t)next_random();
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *row = raw + (uint64_t)i * row_bytes, id[4];
        ids[i] = (int64_t)next_random();
        put_u16(id, (uint32_t)ids[i]), put_u16(id + 2, (uint32_t)ids[i] >> 16);
        uint32_t crc = sti_crc32(row, row_bytes - 4, sti_crc32(id, 4, 0, 0), 0);
        put_u16(row + row_bytes - 4, crc), put_u16(row + row_bytes - 2, crc >> 16);
    }
    int sound = below(2);
    if (!sound && bytes)
        raw[below((uint32_t)bytes)] ^= (uint8_t)(1 << below(8));
    uint32_t said = below(8) ? row_bytes : row_bytes + below(9) - 4, flags = below(4) ? STI_CHECK : 0;
    if (!below(8) && told)
        told -= 1 + below((uint32_t)told);
    for (int i = 0; i < 2; i++) {
        memset(out[i], 0xA5, floats);
        ended[i] = sti_rows(raw, told, said, ids, count, hidden, group, out[i], flags,
                            i ? some_features() : 0, &bad[i]);
    }
    if (ended[0] == STI_FAULTY && bad[0] >= count)
        fail("a bad row that does not exist");
    int32_t wanted = said != row_bytes || told != bytes ? STI_MISUSED
                     : sound || !count || !flags        ? STI_FINE
                                                        : STI_FAULTY;
    if (ended[0] != wanted)
        fail("word rows end otherwise than they must");
    if (ended[0] != ended[1] || bad[0] != bad[1])
        fail("paths find different rows at fault");
    if (memcmp(out[0], out[1], floats))
        fail("paths decode word rows to different floats");
    free(raw), free(ids), free(out[0]), free(out[1]);
    return wanted == STI_MISUSED ? 2 : wanted;
}

int main(int count, char **given)
{
    unsigned long groups = 0, outcomes[6] = {0}, rows[3] = {0};
    if (count < 2) {
        fprintf(stderr, "usage: fuzz SECONDS [SEED ..]\n");
        return 2;
    }
    memcpy(codes, CODES, sizeof codes);
    const int seeds = count > 2 ? count - 2 : 1;
    for (int i = 0; i < seeds; i++) {
        const char *seed = count > 2 ? given[2 + i] : "1";
        double seconds = atof(given[1]) / seeds;
        clock_t start = clock();
        state = strtoull(seed, 0, 0) * 2 + 1;
        for (int warm = 0; warm < 20; warm++)
            next_random();
        while ((double)(clock() - start) / CLOCKS_PER_SEC < seconds) {
            for (int k = 0; k < 20; k++, groups++) {
                outcomes[try_group()]++;
                rows[try_rows()]++;
            }
        }
        printf("seed %s: %lu groups so far: fine %lu, checksum %lu, size %lu, bounds %lu, "
               "outliers %lu, misused %lu; word rows: fine %lu, faulty %lu, misused %lu\n",
               seed, groups, outcomes[0], outcomes[1], outcomes[2], outcomes[3], outcomes[4],
               outcomes[5], rows[0], rows[1], rows[2]);
        fflush(stdout);
    }
    return 0;
}
