/*
 * Everything that programs of the guest reach beyond their machine: a process of the agent's own, with a port of its own
 * to the host's egress worker, so that neither its bytes nor its end touch the channel of the machine.
 */
#ifndef LNS_EGRESS_H
#define LNS_EGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "rootfs.h"

/* Starts it, once; names get addresses of `network`/`mask` (host order). */
bool egress_start(uint32_t network, uint32_t mask, struct failure *failure);
/* Whether somebody on the host is to come to its port, since this was last asked; `again` for a new host. */
bool egress_wants_host(void);
void egress_restart(void);

/* The process itself: its port, where it says that it wants a host, its addresses. */
_Noreturn void egress_main(int port, int wanted, uint32_t network, uint32_t mask);

#endif
