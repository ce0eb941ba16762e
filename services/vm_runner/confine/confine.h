/* What the parts of the launcher share. A step that fails ends the process: nothing runs half confined. */
#ifndef LNS_CONFINE_H
#define LNS_CONFINE_H

#include <stdbool.h>
#include <sys/resource.h>
#include <sys/types.h>

enum { BINDS_MAX = 512, DESCRIPTORS_MAX = 512, LIMITS_MAX = 16, CGROUPS_MAX = 8, FIRST_DESCRIPTOR = 3 };

/* A file or folder of the host that the program sees; code may be executed, data may not. */
struct bind {
    enum { BIND_DATA, BIND_CODE, BIND_DEVICE } kind;
    const char *source; /* without symbolic links */
    const char *target;
};

/* A descriptor that the program is given: the first is 3, the next 4, and so on. */
struct descriptor {
    enum { OPEN_READ, OPEN_WRITE, OPEN_LISTEN } kind;
    const char *path;
};

struct limit {
    int resource;
    rlim_t value;
};

struct options {
    bool isolate;         /* namespaces and a mount view of its own */
    bool user_namespace;  /* … and a user namespace: by its means, where the caller is not root; else inside the view */
    bool wait;            /* stay, and end with the program's status */
    const char *pid_file; /* where the program's pid goes, as this process sees it */
    uid_t first_uid;      /* of the range that the program's user is taken from; 0: the caller's */
    uid_t uid_count;
    gid_t group; /* the one supplementary group; 0: none */
    int oom_score;
    struct bind binds[BINDS_MAX];
    unsigned bind_count;
    struct descriptor descriptors[DESCRIPTORS_MAX];
    unsigned descriptor_count;
    struct limit limits[LIMITS_MAX];
    unsigned limit_count;
    const char *ram;      /* the file that holds the guest's memory; NULL: there is none */
    bool ram_is_shared;   /* the program may write to it; else it sees a private copy of what it changes */
    const char *cgroups[CGROUPS_MAX];
    unsigned cgroup_count;
    char **command;
};

enum { FAILED = 125 };

/* Says what went wrong, with the text of errno, and ends the process with status FAILED. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

void options_parse(struct options *options, char **arguments);

/* Makes a root of memory with nothing but the binds, read-only, and enters it. */
void view_enter(const struct options *options, uid_t uid);

/* Becomes the user, without groups but the one allowed, without capabilities, and unable to gain any. */
void privileges_drop(const struct options *options, uid_t uid);

/*
 * Has the program's one attempt to make a file wait for the launcher, which gets the filter's descriptor
 * over `socket` and answers with the file of the guest's memory.
 */
void ram_await(int socket);
void ram_hand_over(int socket, int ram);

/* Denies system calls that a VMM does not need and QEMU's own filter allows. */
void filter_install(void);

#endif
