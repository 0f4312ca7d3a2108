/* Records to weights with one width of vector. sti_codec.c includes this file once for each, having
defined

    NAME(x)           a name of its own for x
    TARGET            attributes of functions that may use these vectors
    V, WIDTH          the vector of bytes, and how many bytes it has
    LOAD(p), STORE(p, v), BYTES(b)    vectors in memory, without alignment; a vector of one byte
    LEFT(v, k), RIGHT(v, k)           shifts; bits that cross into a neighbour are masked here
    LOOK(table, v), TABLE(p)          sixteen-entry look-up, and its table; absent without one

Byte i of a two-bit component of n weights has weights i + q n/4 in bits 2q and 2q + 1, byte i of a
one-bit component weights i + k n/8 in bit k. So a vector of each serves eight runs of WIDTH weights,
one in each eighth of the record, and unpacking is shifts and masks of whole vectors. A field is held
as two vectors of four bit pairs: `even` for eighths 0, 2, 4, 6 and `odd` for 1, 3, 5, 7. */

#ifdef LOOK
#define LOOKS 1
#else
#define LOOKS 0
#define LOOK(table, v) (v)
#define TABLE(p) BYTES(0)
#endif

struct NAME(field) {
    V even, odd;
};

/* A field's bits at byte i of its components. */
INLINE TARGET struct NAME(field) NAME(read)(int kind, const uint8_t *a, const uint8_t *b, size_t i,
                                            size_t eighth)
{
    struct NAME(field) found;
    V high = LOAD(a + i);
    if (kind == STI_TWO) {
        found.even = high;
        found.odd = LOAD(a + eighth + i);
    } else if (kind == STI_ONES) {
        V low = LOAD(b + i);
        found.even = LEFT(high & BYTES(0x55), 1) | (low & BYTES(0x55));
        found.odd = (high & BYTES(0xAA)) | (RIGHT(low, 1) & BYTES(0x55));
    } else {
        found.even = high & BYTES(0x55);
        found.odd = RIGHT(high, 1) & BYTES(0x55);
    }
    return found;
}

/* The weights, or the indices where there is no look-up, of one eighth. */
INLINE TARGET void NAME(put)(uint8_t *out, V first, V second, V head, V tail, int look)
{
    (void)head, (void)tail;
    if (look == STI_LOOK_ONCE)
        STORE(out, LOOK(head, first));
    else if (LOOKS && look == STI_LOOK_SUM)
        STORE(out, LOOK(head, first) + LOOK(tail, second));
    else
        STORE(out, LEFT(first, 4) | second);
}

#define FIRST_PAIRS(high, low) (LEFT((high) & BYTES(0x33), 2) | ((low) & BYTES(0x33)))
#define OTHER_PAIRS(high, low) (((high) & BYTES(0xCC)) | (RIGHT(low, 2) & BYTES(0x33)))
#define LOW(v) ((v) & BYTES(0x0F))
#define HIGH(v) (RIGHT(v, 4) & BYTES(0x0F))

/* Every other eighth of a record, from the bit pairs of all fields. */
INLINE TARGET void NAME(half)(uint8_t *out, size_t quarter, V f0, V f1, V f2, V f3, V head, V tail,
                              int fields, int look)
{
    if (LOOKS && fields == 1) { /* a nibble has two weights: tail reads the one, head the other */
        STORE(out, LOOK(tail, LOW(f0)));
        STORE(out + quarter, LOOK(head, LOW(f0)));
        STORE(out + 2 * quarter, LOOK(tail, HIGH(f0)));
        STORE(out + 3 * quarter, LOOK(head, HIGH(f0)));
        return;
    }
    V above = fields == 3 ? f0 : f2, below = fields == 3 ? f2 : f3;
    V a = FIRST_PAIRS(f0, f1), b = OTHER_PAIRS(f0, f1);
    V c = FIRST_PAIRS(above, below), d = OTHER_PAIRS(above, below);
    NAME(put)(out, LOW(a), LOW(c), head, tail, look);
    NAME(put)(out + quarter, LOW(b), LOW(d), head, tail, look);
    NAME(put)(out + 2 * quarter, HIGH(a), HIGH(c), head, tail, look);
    NAME(put)(out + 3 * quarter, HIGH(b), HIGH(d), head, tail, look);
}

/* All records of a span. Arguments after `span` repeat what `level` says: where they are constants
   the compiler leaves out all that is not needed. */
INLINE TARGET void NAME(records)(const struct sti_level *level, const struct span *span, int fields,
                                 int k1, int k2, int k3, int look)
{
    V head = TABLE(level->head), tail = TABLE(level->tail), none = BYTES(0);
    const size_t eighth = span->eighth, quarter = 2 * eighth;
    uint8_t *out = span->out;
    for (uint64_t record = 0; record < span->count; record++, out += 8 * eighth) {
        const uint8_t *at[STI_FIELDS][2];
        for (int field = 0; field < fields; field++)
            for (int part = 0; part < 2; part++)
                at[field][part] = span->at[field][part] + record * span->apart[field][part];
        for (size_t i = 0; i < eighth; i += WIDTH) {
            if (i + WIDTH > eighth)
                i = eighth - WIDTH; /* the last vector overlaps the one before */
            struct NAME(field) f0 = NAME(read)(STI_TWO, at[0][0], 0, i, eighth);
            struct NAME(field) f1 = {none, none}, f2 = f1, f3 = f1;
            if (fields > 1)
                f1 = NAME(read)(k1, at[1][0], at[1][1], i, eighth);
            if (fields > 2)
                f2 = NAME(read)(k2, at[2][0], at[2][1], i, eighth);
            if (fields > 3)
                f3 = NAME(read)(k3, at[3][0], at[3][1], i, eighth);
            NAME(half)(out + i, quarter, f0.even, f1.even, f2.even, f3.even, head, tail, fields, look);
            NAME(half)(out + eighth + i, quarter, f0.odd, f1.odd, f2.odd, f3.odd, head, tail, fields,
                       look);
        }
        if (look == STI_LOOK_ONCE ? !LOOKS : !(LOOKS && look == STI_LOOK_SUM)) {
            const uint8_t *table = look == STI_LOOK_ONCE ? level->head : level->table;
            for (size_t i = 0; i < 8 * eighth; i++)
                out[i] = table[out[i]];
        }
    }
}

/* As the function above, quickly for the fidelities of the usual ladder: 2, 3, 4, 6 and 8 bits. */
static TARGET void NAME(decode)(const struct sti_level *level, const struct span *span)
{
    const uint8_t *kind = level->kinds;
    const int fields = level->fields, look = level->look;
    const int ones = fields > 1 && kind[1] == STI_ONES;
    if (LOOKS && fields == 1)
        NAME(records)(level, span, 1, 0, 0, 0, STI_LOOK_ONCE);
    else if (LOOKS && fields == 2 && kind[1] == STI_ONE)
        NAME(records)(level, span, 2, STI_ONE, 0, 0, STI_LOOK_ONCE);
    else if (LOOKS && fields == 2 && ones)
        NAME(records)(level, span, 2, STI_ONES, 0, 0, STI_LOOK_ONCE);
    else if (LOOKS && fields == 3 && ones && kind[2] == STI_TWO && look == STI_LOOK_SUM)
        NAME(records)(level, span, 3, STI_ONES, STI_TWO, 0, STI_LOOK_SUM);
    else if (LOOKS && fields == 4 && ones && kind[2] == STI_TWO && kind[3] == STI_TWO &&
             look == STI_LOOK_SUM)
        NAME(records)(level, span, 4, STI_ONES, STI_TWO, STI_TWO, STI_LOOK_SUM);
    else
        NAME(records)(level, span, fields, kind[1], kind[2], kind[3], look);
}

#undef LOOKS
#undef FIRST_PAIRS
#undef OTHER_PAIRS
#undef LOW
#undef HIGH
#undef NAME
#undef TARGET
#undef V
#undef WIDTH
#undef LOAD
#undef STORE
#undef BYTES
#undef LEFT
#undef RIGHT
#undef LOOK
#undef TABLE
