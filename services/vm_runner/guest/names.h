/* Names that programs of the guest asked for, each with an address that stands for it; and the answers to them. */
#ifndef LNS_NAMES_H
#define LNS_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NAME_MAX_BYTES = 253, DNS_MESSAGE_MAX = 512 };

/* Names get addresses of `network`/`mask` (host order), in their order; none is ever given twice. */
void names_start(uint32_t network, uint32_t mask);
/* The name that an address stands for, NULL if it stands for none. */
const char *names_find(uint32_t address);
/* Whether an address is one of those that stand for names. */
bool names_own(uint32_t address);

/* Answers a question (RFC 1035): an address for a name and type A; nothing of any other type, which is no error, so that
 * programs go on with what they have. Returns the size of the answer, 0 if the question deserves none. */
size_t names_answer(const uint8_t *question, size_t size, uint8_t answer[DNS_MESSAGE_MAX]);

#endif
