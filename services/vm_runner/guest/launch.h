/* What happens between fork and exec. */
#ifndef LNS_LAUNCH_H
#define LNS_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "archive.h"
#include "wire.h"

enum { RLIMITS_MAX = 16, EXTRA_GROUPS_MAX = 32 };

/* A process as the host describes it. */
struct launch {
    char **argv, **env;
    unsigned arg_count, env_count;
    const char *user, *workdir;
    bool terminal, is_main;
    uint32_t stdio_stream, stderr_stream;
    unsigned short rows, columns;
    struct {
        int resource;
        struct rlimit limit;
    } rlimits[RLIMITS_MAX];
    unsigned rlimit_count;
    const char *groups[EXTRA_GROUPS_MAX];
    unsigned group_count;
    mode_t umask;
    int oom_score;
    enum builtin builtin; /* done instead of executing a program; its operand is argv[0] */

    /* set by the parent */
    int stdin_fd, stdout_fd, stderr_fd; /* -1: /dev/null */
    unsigned terminal_number;
    int report_fd; /* closed by a successful exec */
};

/* What the child and its helper write to `report_fd`. */
struct launch_report {
    int32_t pid;      /* of the child, 0 in a report of a failure */
    int32_t error;
    char stage[24];
};

/* Reads a description; the texts live as long as the agent's child needs them. False: malformed. */
bool launch_parse(struct launch *launch, const uint8_t *data, uint32_t size);
void launch_free(struct launch *launch);

/* Runs in a child of the agent: enters the workload's namespaces, forks a sibling that becomes the process. */
_Noreturn void launch_run(struct launch *launch);

#endif
