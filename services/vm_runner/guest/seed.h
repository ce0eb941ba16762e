/* The first content of a volume: what the image has at the path where it is mounted. */
#ifndef LNS_SEED_H
#define LNS_SEED_H

#include <stdbool.h>

#include "rootfs.h"

/*
 * Makes `data` below the volume's root `place`, a path below `base`, unless it exists: a copy of the directory
 * `target` with owners and modes, or an empty one where `target` does not exist.
 */
bool seed_volume(int base, const char *place, const char *target, struct failure *failure);

#endif
