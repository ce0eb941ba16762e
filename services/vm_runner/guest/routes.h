/* Where packets of a machine without a network card go: to the agent, or nowhere. */
#ifndef LNS_ROUTES_H
#define LNS_ROUTES_H

#include <stdbool.h>
#include <stdint.h>

#include "rootfs.h"

/* Programs' packets begin at `network` + 1, and at this address of the other family. */
extern const uint8_t OWN_ADDRESS_6[16];
enum { OWN_HOST = 1 };
/* Packets with this mark, the agent's own, may go to every address. */
enum { ROUTED_MARK = 0x6C6E73 };

/* Makes every address of both families one of this machine's own, for TCP and UDP; other protocols, multicast and
 * broadcast are unreachable at once. `network` in host order. */
bool routes_start(uint32_t network, struct failure *failure);

#endif
