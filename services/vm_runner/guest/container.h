/* The workload's namespaces: a process of the agent's own as their pid 1, the mounts that a container expects. */
#ifndef LNS_CONTAINER_H
#define LNS_CONTAINER_H

#include <stdint.h>
#include <sys/types.h>

#include "rootfs.h"

/* A disk of the host, or, where there is a port, a folder or file that the host serves there. */
struct volume {
    const char *disk, *target;
    bool read_only, is_file;
    const char *port, *user;
};

struct file {
    const char *path;
    const char *content;
    size_t size;
};

/* What is mounted into the root. */
struct container {
    const char *hostname;
    const char *read_only_paths[LISTED_MAX];
    unsigned read_only_count;
    struct volume volumes[LISTED_MAX];
    unsigned volume_count;
    struct file files[LISTED_MAX];
    unsigned file_count;
    const char *directories[LISTED_MAX]; /* that have to exist */
    unsigned directory_count;
    uint64_t shm_bytes;
    const char *authority; /* PEM of what the run's programs are to trust, or NULL */
};

/* Starts pid 1 of new namespaces on ROOT_PATH. Returns its pid, -1 with the failure filled in. */
pid_t container_start(const struct container *container, struct failure *failure);

#endif
