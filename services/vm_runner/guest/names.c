#include "names.h"

#include <ctype.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"

enum {
    NAMES_MAX = 16384,
    SLOTS = 2 * NAMES_MAX,
    FIRST_NAME = 256, /* the addresses before are the agent's own */
    HEADER = 12,
    LABEL_MAX = 63,
    TTL_SECONDS = 60,
    TYPE_A = 1,
    TYPE_OPT = 41,
    CLASS_IN = 1,
    OK = 0,
    FORMAT_ERROR = 1,
    SERVER_FAILURE = 2,
    NO_SUCH_NAME = 3,
    NOT_IMPLEMENTED = 4,
};

static uint32_t first_address, names_max;
static char *names[NAMES_MAX];
static uint32_t name_count;
static uint16_t slots[SLOTS]; /* a hash table of numbers of names, from 1 */

void names_start(uint32_t network, uint32_t mask)
{
    first_address = network + FIRST_NAME;
    uint32_t room = ~mask > FIRST_NAME ? ~mask - FIRST_NAME : 0;
    names_max = room < NAMES_MAX ? room : NAMES_MAX;
}

bool names_own(uint32_t address)
{
    return address - first_address < names_max;
}

const char *names_find(uint32_t address)
{
    uint32_t number = address - first_address;
    return number < name_count ? names[number] : NULL;
}

/* FNV-1a. A program that makes names collide slows its own machine down. */
static uint32_t hash(const char *text)
{
    uint32_t value = 2166136261u;
    for (; *text; text++)
        value = (value ^ (uint8_t)*text) * 16777619u;
    return value;
}

/* Returns the address of a name, which gets one now if it has none; 0 if all are used. */
static uint32_t address_of(const char *name)
{
    uint32_t slot = hash(name) % SLOTS;
    for (; slots[slot]; slot = (slot + 1) % SLOTS)
        if (strcmp(names[slots[slot] - 1], name) == 0)
            return first_address + slots[slot] - 1;
    if (name_count == names_max) {
        static bool told;
        if (!told)
            note("no further name gets an address: programs asked for %u", name_count);
        told = true;
        return 0;
    }
    names[name_count] = allocate(strlen(name) + 1);
    strcpy(names[name_count], name);
    slots[slot] = (uint16_t)++name_count;
    return first_address + name_count - 1;
}

/* Reads the name of a question, in small letters. Returns the bytes it takes, 0 if these bytes are no name; `sound` says
 * whether it can be a host's name. */
static size_t read_name(const uint8_t *data, size_t size, char name[NAME_MAX_BYTES + 1], bool *sound)
{
    size_t at = 0, length = 0;
    bool digits_only = true;
    *sound = true;
    for (;;) {
        if (at >= size || data[at] > LABEL_MAX)
            return 0; /* or compressed, which a question is not */
        size_t label = data[at++];
        if (label == 0)
            break;
        if (at + label > size || length + label + 1 > NAME_MAX_BYTES + 1)
            return 0;
        if (length)
            name[length++] = '.';
        digits_only = true;
        for (size_t i = 0; i < label; i++) {
            char c = (char)tolower(data[at + i]);
            *sound = *sound && ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_');
            digits_only = digits_only && c >= '0' && c <= '9';
            name[length++] = c;
        }
        at += label;
    }
    name[length] = '\0';
    *sound = *sound && length && !digits_only; /* what ends in a number is an address, if anything */
    return at;
}

static void put_16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static unsigned get_16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

/* Puts an address behind the question, whose name is at the end of the header. Returns the bytes it takes. */
static size_t put_address(uint8_t *at, uint32_t address)
{
    put_16(at, 0xC000 | HEADER);
    put_16(at + 2, TYPE_A);
    put_16(at + 4, CLASS_IN);
    put_16(at + 6, 0);
    put_16(at + 8, TTL_SECONDS);
    put_16(at + 10, 4);
    address = htonl(address);
    memcpy(at + 12, &address, 4);
    return 16;
}

/* Says which size is taken, as whoever asks with EDNS (RFC 6891) expects. */
static size_t put_opt(uint8_t *at)
{
    memset(at, 0, 11);
    put_16(at + 1, TYPE_OPT);
    put_16(at + 3, DNS_MESSAGE_MAX);
    return 11;
}

size_t names_answer(const uint8_t *question, size_t size, uint8_t answer[DNS_MESSAGE_MAX])
{
    if (size < HEADER || question[2] & 0x80)
        return 0;
    char name[NAME_MAX_BYTES + 2];
    bool sound = false;
    size_t taken = get_16(question + 4) == 1 ? read_name(question + HEADER, size - HEADER, name, &sound) : 0;
    size_t end = HEADER + taken + 4;
    unsigned code = OK, answers = 0;
    if (question[2] & 0x78)
        code = NOT_IMPLEMENTED;
    else if (!taken || end > size)
        code = FORMAT_ERROR;
    if (code)
        end = HEADER;
    memset(answer, 0, HEADER);
    memcpy(answer, question, end);
    size_t at = end;
    if (!code && get_16(question + end - 4) == TYPE_A && get_16(question + end - 2) == CLASS_IN) {
        bool is_local = strcmp(name, "localhost") == 0;
        uint32_t address = is_local ? INADDR_LOOPBACK : sound ? address_of(name) : 0;
        if (address) {
            at += put_address(answer + at, address);
            answers = 1;
        } else {
            code = sound ? SERVER_FAILURE : NO_SUCH_NAME;
        }
    }
    bool extended = end > HEADER && get_16(question + 10) && size >= end + 11 && question[end] == 0 &&
                    get_16(question + end + 1) == TYPE_OPT;
    if (extended)
        at += put_opt(answer + at);
    answer[2] = (uint8_t)(0x80 | (question[2] & 0x79)); /* an answer; opcode and "recursion desired" as asked */
    answer[3] = (uint8_t)(0x80 | code);                /* recursion is available */
    put_16(answer + 4, end > HEADER);
    put_16(answer + 6, answers);
    put_16(answer + 8, 0);
    put_16(answer + 10, extended);
    return at;
}
