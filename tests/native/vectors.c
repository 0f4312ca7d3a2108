/* Golden vectors of the kernel (vectors.h, made from the NumPy specification) on every path that runs
   here; for processors other than the one at hand it runs under qemu-user:

       cc -O2 -I sti/codec/native -o vectors tests/native/vectors.c sti/codec/native/sti_codec.c
       ./vectors
*/

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

#include "sti_codec.h"
#include "vectors.h"

#define GUARD 64
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static int failures;

static void check(int right, const char *what, uint32_t features, size_t number)
{
    if (!right) {
        printf("features %u, %s %zu: wrong\n", (unsigned)features, what, number);
        failures++;
    }
}

/* Of an operand's matrix and the guards on both sides. */
static size_t bytes_of(const struct sti_operand *operand)
{
    return (size_t)operand->slices * operand->parts * operand->rows * operand->columns + 2 * GUARD;
}

static void try_group(const struct vector *v, uint32_t features, size_t number)
{
    struct sti_code code;
    struct sti_operand operands[4];
    uint8_t *memory[4];
    struct sti_fault fault = {0, 0, 0};
    uint32_t crc = 0;
    memcpy(&code, CODES[v->code], sizeof code);
    code.features = features;
    for (uint32_t i = 0; i < v->operand_count; i++) {
        size_t bytes = bytes_of(&v->operands[i]);
        memory[i] = malloc(bytes);
        memset(memory[i], 0xA5, bytes);
        operands[i] = v->operands[i];
        operands[i].at = memory[i] + GUARD;
    }
    uint64_t start = 0;
    int32_t ended = sti_decode(&code, v->data, v->data_bytes, &start, 1, v->shards, v->shard_count,
                               operands, v->operand_count, STI_CHECK, &fault);
    for (uint32_t i = 0; i < v->operand_count; i++) {
        crc = sti_crc32(memory[i], bytes_of(&v->operands[i]), crc, features);
        free(memory[i]);
    }
    if (v->what)
        check(ended == STI_FAULTY && fault.row == v->row && fault.piece == v->piece &&
                  fault.what == v->what,
              "fault", features, number);
    else
        check(ended == STI_FINE && crc == v->decoded, "group", features, number);
}

static void try_rows(uint32_t features)
{
    float out[ROW_COUNT * ROW_HIDDEN];
    int64_t ids[ROW_COUNT];
    uint64_t bad = 99;
    memcpy(ids, ROW_IDS, sizeof ids);
    memset(out, 0, sizeof out);
    int32_t ended = sti_rows(ROWS, sizeof ROWS, ROW_BYTES, ids, ROW_COUNT, ROW_HIDDEN, ROW_GROUP, out,
                             STI_CHECK, features, &bad);
    uint32_t crc = sti_crc32((const uint8_t *)out, sizeof out, 0, features);
    check(ended == STI_FINE && crc == ROW_DECODED, "word rows", features, 0);
    ids[1]++;
    ended = sti_rows(ROWS, sizeof ROWS, ROW_BYTES, ids, ROW_COUNT, ROW_HIDDEN, ROW_GROUP, out,
                     STI_CHECK, features, &bad);
    check(ended == STI_FAULTY && bad == 1, "word rows", features, 1);
}

int main(void)
{
    uint32_t all = sti_features(), tried = 0;
#if defined(__aarch64__) && defined(__linux__)
    if (getauxval(AT_HWCAP) & 1 << 7)
        all |= STI_ARM_CRC;
#endif
    check(sti_abi() == STI_ABI, "interface", 0, 0);
    for (uint32_t features = 0; features <= all; features++) {
        uint32_t wide = STI_AVX2 | STI_CLMUL;
        if (features & ~all || (features & STI_AVX2 && ~features & STI_SSSE3) ||
            (features & STI_WIDE_CLMUL && (features & wide) != wide))
            continue;
        tried++;
        check(sti_crc32((const uint8_t *)"123456789", 9, 0, features) == 0xCBF43926, "checksum", features, 0);
        for (size_t i = 0; i < COUNT_OF(VECTORS); i++)
            try_group(&VECTORS[i], features, i);
        try_rows(features);
    }
    printf("%zu groups on %u sets of features (of %u): %d wrong\n", COUNT_OF(VECTORS), (unsigned)tried,
           (unsigned)all, failures);
    return failures != 0;
}
