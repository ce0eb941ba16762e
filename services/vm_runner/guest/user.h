/* Users and groups by name or number, from the files of the image. */
#ifndef LNS_USER_H
#define LNS_USER_H

#include <sys/types.h>

enum { GROUPS_MAX = 256 };

struct identity {
    uid_t uid;
    gid_t gid;
    gid_t groups[GROUPS_MAX];
    unsigned group_count;
    char home[4096];
};

/*
 * Looks `user[:group]` up in /etc/passwd and /etc/group of the current root; "" is root. A number needs no
 * entry. Without a group the user's own groups are taken. Returns NULL, or what is unknown.
 */
const char *identity_find(const char *text, struct identity *identity);
/* Adds a supplementary group by name or number. Returns NULL, or what is unknown. */
const char *identity_add_group(const char *text, struct identity *identity);

#endif
