/* Packets that the agent reads and writes itself: SYNs that wait, refusals, answers to questions about names. */
#ifndef LNS_PACKET_H
#define LNS_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The longest headers: of IPv6 and TCP, or of IPv4 and TCP with every option. */
enum { HEADERS_MAX = 120 };

/* One end: an address (IPv4 as IPv4-mapped) and a port in host order. */
struct end {
    uint8_t address[16];
    uint16_t port;
};

bool address_is_4(const uint8_t address[16]);
/* In host order. */
uint32_t address_4(const uint8_t address[16]);
void address_put_4(uint8_t address[16], uint32_t value);

/* A SYN without what follows its headers. */
struct syn {
    struct end from, to;
    uint32_t sequence;
    uint32_t size;
    _Alignas(8) uint8_t packet[HEADERS_MAX];
};

/* Reads a whole packet of IPv4; false if it is no SYN. */
bool syn_read_4(struct syn *syn, const uint8_t *packet, size_t size);
/* Reads a segment of TCP over IPv6 between two addresses. */
bool syn_read_6(struct syn *syn, const uint8_t from[16], const uint8_t to[16], const uint8_t *segment, size_t size);

/* Writes what a host without a listener answers. Returns its size. */
size_t refusal_write(uint8_t packet[HEADERS_MAX], const struct syn *syn);
/* Writes a datagram. Returns its size, 0 if `room` does not do. */
size_t datagram_write(uint8_t *packet, size_t room, const struct end *from, const struct end *to, const void *data,
                      size_t size);

#endif
