/* The machine's clock follows the host's. */
#ifndef LNS_CLOCK_H
#define LNS_CLOCK_H

#include <stdint.h>

/*
 * The host says what time it was when it sent this, in nanoseconds since the epoch. A message may be late but never
 * early: one that is ahead of the machine's clock sets it at once (after a boot, or a pause), one that is behind
 * slews it, and only where several in a row agree. The clock never goes backwards.
 */
void clock_told(uint64_t ns);

#endif
