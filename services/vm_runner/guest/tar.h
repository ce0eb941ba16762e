/* The header of a tar entry, and what packing and unpacking share. */
#ifndef LNS_TAR_H
#define LNS_TAR_H

#include <stdio.h>

enum { BLOCK = 512, COPY_BYTES = 65536, PATH_BYTES = 4096 };

/* POSIX.1-2001, "ustar interchange format". */
struct header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100];
    char magic[6], version[2], user[32], group[32], device_major[8], device_minor[8], prefix[155], rest[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a header is a block");

/* Names the culprit on standard error; returns the exit code. */
static inline int failure(const char *path, const char *why)
{
    fprintf(stderr, "%.300s: %s\n", path, why);
    return 1;
}

#endif
