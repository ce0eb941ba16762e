/* The workload's root: composefs image, object packs and writable layer from disks, put together by overlayfs. */
#ifndef LNS_ROOTFS_H
#define LNS_ROOTFS_H

#include <stdbool.h>

#define ROOT_PATH "/root"           /* the merged tree */
#define READ_ONLY_PATH "/ro"        /* the same image without the writable layer */
#define LOWER_PATH "/l"             /* the image's parts; short, since they all stand in one option of 4 KiB */
#define UPPER_PATH "/w"             /* the writable layer's file system */

enum { PACKS_MAX = 400, LISTED_MAX = 256 };

/* What the host wants; texts that are not given are NULL. */
struct rootfs {
    const char *metadata_disk, *writable_disk;
    const char *packs[PACKS_MAX];
    unsigned pack_count;
    bool no_acl;
    bool needs_read_only; /* also make READ_ONLY_PATH */
};

/* Where something failed. */
struct failure {
    int error;
    char stage[96];
};
/* Records `errno` with the stage; returns false. */
bool failed_at(struct failure *failure, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Mounts the image's disks, and the whole root where there is a writable disk; what is mounted stays as it is. */
bool rootfs_prepare(const struct rootfs *rootfs, struct failure *failure);
/* Mounts what is not mounted yet. */
bool rootfs_mount(const struct rootfs *rootfs, struct failure *failure);
/* Unmounts a root whose writable layer is in memory; one on a disk stays. */
void rootfs_clear(void);
/* Waits for the disk of that serial and writes its device's path. */
bool disk_find(const char *serial, char path[32], struct failure *failure);

#endif
