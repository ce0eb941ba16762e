/* Connections that programs of the guest begin: asked for under a ticket, admitted or refused by the host. */
#ifndef LNS_OUTGOING_H
#define LNS_OUTGOING_H

#include "rootfs.h"
#include "wire.h"

/* Takes over all TCP connections to `network`/`mask` (host order), from the first on. */
bool outgoing_start_peers(uint32_t network, uint32_t mask, struct failure *failure);
/* Takes over all TCP connections but those of loopback, and all questions about names, which get addresses of
 * `network`/`mask`. `wanted` is called when a connection is asked for and no host is connected. */
bool outgoing_start_everything(uint32_t network, uint32_t mask, void (*wanted)(void), struct failure *failure);

/* Describes the next connection that is asked for; returns its ticket, 0 if none waits. */
uint32_t outgoing_put_request(struct fields *fields);
/* The host has the other end: the program gets its connection, as stream `id`. */
void outgoing_admit(uint32_t id, uint32_t ticket);
/* The program gets the error that no process listens. */
void outgoing_refuse(uint32_t ticket);
/* A host said hello: what was asked of an earlier one is asked again. */
void outgoing_restart(void);

#endif
