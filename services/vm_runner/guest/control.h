/* Messages about the machine and its processes, in both directions. */
#ifndef LNS_CONTROL_H
#define LNS_CONTROL_H

#include "wire.h"

/* Takes a frame that is about no stream. */
void control_frame(const struct frame *frame);
/* Puts one due frame into `out`, which has room for FRAME_MAX. Returns its size, 0 if nothing is due. */
size_t control_next(uint8_t *out);
/* The same for the frame that ends the state sent to a new host. */
size_t control_ready(uint8_t *out);
/* A host said hello: everything it may have missed is due again. */
void control_restart(void);

/* From now on messages about the machine and its processes are not for this process. */
void control_serve_connections_only(void);

/* A line for the host; old ones give way to new ones. */
void control_notice(const char *text);
/* Moments of the boot on CLOCK_BOOTTIME, sent with the welcome. */
void control_boot_moment(uint64_t ns);

#endif
