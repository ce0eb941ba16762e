#include "sha1.h"

#include <string.h>

static uint32_t turn(uint32_t value, unsigned bits)
{
    return value << bits | value >> (32 - bits);
}

static uint32_t mix(unsigned round, uint32_t b, uint32_t c, uint32_t d)
{
    static const uint32_t constants[] = {0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6};
    uint32_t chosen = round < 20   ? (b & c) | (~b & d)
                      : round < 40 ? b ^ c ^ d
                      : round < 60 ? (b & c) | (b & d) | (c & d)
                                   : b ^ c ^ d;
    return chosen + constants[round / 20];
}

static void take_block(struct sha1 *sha1)
{
    uint32_t words[80], *s = sha1->state;
    for (unsigned i = 0; i < 16; i++) {
        const uint8_t *at = sha1->block + 4 * i;
        words[i] = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    }
    for (unsigned i = 16; i < 80; i++)
        words[i] = turn(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
    uint32_t a = s[0], b = s[1], c = s[2], d = s[3], e = s[4];
    for (unsigned i = 0; i < 80; i++) {
        uint32_t next = turn(a, 5) + mix(i, b, c, d) + e + words[i];
        e = d;
        d = c;
        c = turn(b, 30);
        b = a;
        a = next;
    }
    s[0] += a;
    s[1] += b;
    s[2] += c;
    s[3] += d;
    s[4] += e;
}

void sha1_begin(struct sha1 *sha1)
{
    static const uint32_t start[] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    memcpy(sha1->state, start, sizeof start);
    sha1->size = 0;
}

void sha1_add(struct sha1 *sha1, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        sha1->block[sha1->size++ % SHA1_BLOCK] = data[i];
        if (sha1->size % SHA1_BLOCK == 0)
            take_block(sha1);
    }
}

void sha1_end(struct sha1 *sha1, uint8_t digest[SHA1_BYTES])
{
    uint64_t bits = sha1->size * 8;
    uint8_t length[8], one = 0x80, zero = 0;
    sha1_add(sha1, &one, 1);
    while (sha1->size % SHA1_BLOCK != SHA1_BLOCK - 8)
        sha1_add(sha1, &zero, 1);
    for (unsigned i = 0; i < 8; i++)
        length[i] = (uint8_t)(bits >> (8 * (7 - i)));
    sha1_add(sha1, length, sizeof length);
    for (unsigned i = 0; i < SHA1_BYTES; i++)
        digest[i] = (uint8_t)(sha1->state[i / 4] >> (8 * (3 - i % 4)));
}
