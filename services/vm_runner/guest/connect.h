/* Connections from the host to ports of the guest. */
#ifndef LNS_CONNECT_H
#define LNS_CONNECT_H

#include "wire.h"

/* Connects stream `id` to the loopback port that the message names, or to what waits under its ticket. */
void connect_start(uint32_t id, const uint8_t *data, uint32_t size);
/* Describes the next result; returns its stream's id, 0 if no result is due. */
uint32_t connect_put_result(struct fields *fields);
/* Tells the host whether stream `id` is connected. */
void connect_report(uint32_t id, int error);

#endif
