/*
 * Steering: connections to addresses that are not the machine's end at a socket of the agent, whatever program makes
 * them and at whichever port; and not before somebody has decided about them.
 *
 * A program of type SK_LOOKUP chooses the socket for each SYN: `front`, which accepts, for connections that were
 * admitted, else one that drops it unanswered, so that the connecting program waits as it would for a distant host.
 * `syns` shows the SYN meanwhile; sent again after the decision, it finds the other socket. Questions about names go
 * to sockets of their own. Any other datagram finds nobody, which its sender is told.
 */
#ifndef LNS_STEER_H
#define LNS_STEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "packet.h"
#include "rootfs.h"

enum { FAMILY_4, FAMILY_6, FAMILIES };

struct steering {
    bool everything;       /* every address of both families but loopback; else `network` alone, TCP alone */
    uint32_t network, mask; /* in host order: what is steered, or where the agent's own addresses are */
    int front[FAMILIES];   /* listen for what was admitted */
    int syns[FAMILIES];    /* raw: each SYN can be read here */
    int udp[FAMILIES];     /* questions about names */
    int tcp[FAMILIES];     /* listen for them */
    int admitted;          /* the kernel's table of admitted connections */
};

/* The two ends of a connection: addresses and the far port in network order, as the kernel's table has them. */
struct connection_key {
    uint8_t local[16], remote[16];
    uint32_t local_port;  /* host order: what the program connects to */
    uint32_t remote_port; /* network order: the program's own */
};

struct connection_key steer_key(const struct end *from, const struct end *to);

/* Steers what `everything`, `network` and `mask` say; fills the rest in. */
bool steer_start(struct steering *steering, struct failure *failure);

bool steer_admit(const struct steering *steering, const struct connection_key *key);
void steer_forget(const struct steering *steering, const struct connection_key *key);

void steer_read_end(const struct sockaddr_storage *from, struct end *end);
/* Sends a whole packet to one of the machine's own addresses. */
void steer_send(const uint8_t *packet, size_t size, const struct end *to);

#endif
