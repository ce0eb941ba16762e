#include "jks.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "sha1.h"

enum { TRUSTED = 2, VERSION = 2, MAGIC = 0xFEEDFEED, CERTIFICATES_MAX = 4096 };

static const char BEGIN[] = "-----BEGIN CERTIFICATE-----";
static const char END[] = "-----END CERTIFICATE-----";

static uint8_t *put(uint8_t *at, uint64_t number, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        *at++ = (uint8_t)(number >> (8 * (bytes - 1 - i)));
    return at;
}

static uint8_t *put_text(uint8_t *at, const char *text)
{
    size_t length = strlen(text);
    at = put(at, length, 2);
    memcpy(at, text, length);
    return at + length;
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Decodes what lies between two marks; other characters than those of base64 are skipped. */
static size_t decode(const char *text, size_t size, uint8_t *out)
{
    size_t length = 0;
    uint32_t bits = 0;
    unsigned count = 0;
    for (size_t i = 0; i < size; i++) {
        int value = base64_value(text[i]);
        if (value < 0)
            continue;
        bits = bits << 6 | (uint32_t)value;
        count += 6;
        if (count >= 8) {
            count -= 8;
            out[length++] = (uint8_t)(bits >> count);
        }
    }
    return length;
}

static uint8_t *put_certificate(uint8_t *at, unsigned number, const char *text, size_t size)
{
    char alias[24];
    snprintf(alias, sizeof alias, "lns-%u", number);
    at = put(at, TRUSTED, 4);
    at = put_text(at, alias);
    at = put(at, 0, 8); /* when it was added, ms */
    at = put_text(at, "X.509");
    size_t length = decode(text, size, at + 4);
    return put(at, length, 4) + length;
}

/* The digest covers the password, two bytes a character, a phrase, and everything before it. */
static void seal(const uint8_t *data, size_t size, uint8_t digest[SHA1_BYTES])
{
    static const char password[] = "\0c\0h\0a\0n\0g\0e\0i\0t";
    static const char phrase[] = "Mighty Aphrodite";
    struct sha1 sha1;
    sha1_begin(&sha1);
    sha1_add(&sha1, (const uint8_t *)password, sizeof password - 1);
    sha1_add(&sha1, (const uint8_t *)phrase, sizeof phrase - 1);
    sha1_add(&sha1, data, size);
    sha1_end(&sha1, digest);
}

uint8_t *jks_of_pem(const char *pem, size_t size, size_t *made)
{
    /* Base64 shrinks by a quarter and each entry adds less than its marks and 64 bytes. */
    uint8_t *store = malloc(size + (size_t)CERTIFICATES_MAX * 64 + 64);
    if (!store)
        return NULL;
    uint8_t *at = put(put(store, MAGIC, 4), VERSION, 4) + 4;
    unsigned count = 0;
    const char *end = pem + size, *text = pem;
    while (count < CERTIFICATES_MAX && (text = memmem(text, (size_t)(end - text), BEGIN, sizeof BEGIN - 1)) != NULL) {
        text += sizeof BEGIN - 1;
        const char *stop = memmem(text, (size_t)(end - text), END, sizeof END - 1);
        if (!stop)
            break;
        at = put_certificate(at, count++, text, (size_t)(stop - text));
        text = stop;
    }
    put(store + 8, count, 4);
    seal(store, (size_t)(at - store), at);
    *made = (size_t)(at - store) + SHA1_BYTES;
    if (count)
        return store;
    free(store);
    return NULL;
}
