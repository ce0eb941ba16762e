/* The one channel to the host: a virtio port (a socket in tests) that carries frames both ways. */
#ifndef LNS_CHANNEL_H
#define LNS_CHANNEL_H

#include "wire.h"

/* Takes over an open, non-blocking descriptor. */
void channel_open(int fd);
/* Whether a host has said hello and is connected. */
bool channel_has_host(void);
/* Has a function called when a host that said hello has disconnected; without one, streams wait for the next host. */
void channel_on_hang_up(void (*gone)(void));
/* Something is to be sent; it goes out before the event loop sleeps. */
void channel_wake(void);
/* Sends what is due. Called by the event loop before each sleep. */
void channel_pump(void);
/* Blocks until everything that is due was sent, two seconds at most. */
void channel_flush(void);
/* Milliseconds until the channel wants to be looked at again, -1 for never. */
int channel_timeout(void);

#endif
