/* SHA-1 (FIPS 180-4), which Java's key stores are sealed with; nothing here is protected by it. */
#ifndef LNS_SHA1_H
#define LNS_SHA1_H

#include <stddef.h>
#include <stdint.h>

enum { SHA1_BYTES = 20, SHA1_BLOCK = 64 };

struct sha1 {
    uint32_t state[5];
    uint64_t size;
    uint8_t block[SHA1_BLOCK];
};

void sha1_begin(struct sha1 *sha1);
void sha1_add(struct sha1 *sha1, const uint8_t *data, size_t size);
void sha1_end(struct sha1 *sha1, uint8_t digest[SHA1_BYTES]);

#endif
