/*
 * Steering: TCP connections to a range of addresses end at a socket of the agent, whatever program makes them and
 * at whichever port; and not before somebody has decided about them.
 *
 * A program of type SK_LOOKUP chooses the socket for each SYN: `front`, which accepts, for connections that were
 * admitted, else one that drops it unanswered, so that the connecting program waits as it would for a distant host.
 * `syns` shows the SYN meanwhile; sent again after the decision, it finds the other socket.
 */
#ifndef LNS_STEER_H
#define LNS_STEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rootfs.h"

struct steering {
    int front;    /* listens for what was admitted */
    int syns;     /* raw: each SYN to the range can be read here, and whole packets can be sent */
    int admitted; /* the kernel's table of admitted connections */
};

/* The two ends of a connection: addresses and the far port in network order, as the kernel's table has them. */
struct connection_key {
    uint32_t local, remote;
    uint32_t local_port;  /* host order: what the program connects to */
    uint32_t remote_port; /* network order: the program's own */
};

/* Steers connections to `network`/`mask` (host order). */
bool steer_start(struct steering *steering, uint32_t network, uint32_t mask, struct failure *failure);

bool steer_admit(const struct steering *steering, const struct connection_key *key);
void steer_forget(const struct steering *steering, const struct connection_key *key);

#endif
