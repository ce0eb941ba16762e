/* Folders of the host: FUSE mounts whose messages a process of their own carries to a virtio port and back. */
#ifndef LNS_BIND_H
#define LNS_BIND_H

#include <stdbool.h>

#include "rootfs.h"

/*
 * Mounts on `where` what the host serves at the port of that name: a folder, or a file. Its owner is shown as
 * `user`, looked up in the files of the workload's root. False with the failure filled in.
 */
bool bind_mount(const char *port, const char *where, bool is_file, bool read_only, const char *user,
                struct failure *failure);

#endif
