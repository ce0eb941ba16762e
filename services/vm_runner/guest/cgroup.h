/* The cgroup of the workload: its limits, its standstill, what it uses. */
#ifndef LNS_CGROUP_H
#define LNS_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "rootfs.h"
#include "wire.h"

/* Makes it. `memory_max` 0: all but what kernel and agent need; `pids_max` 0: no limit. */
bool cgroup_make(uint64_t pids_max, uint64_t memory_max, struct failure *failure);
bool cgroup_limit(uint64_t pids_max, struct failure *failure);
void cgroup_remove(void);
/* In a child of the agent: has it counted and limited with the workload. */
void cgroup_join(void);
/* Returns when no process of it executes any more, also one that joins it later, until the thaw; or gives it up. */
bool cgroup_freeze(struct failure *failure);
void cgroup_thaw(void);
uint64_t cgroup_oom_kills(void);
void cgroup_put_stats(struct fields *fields);

#endif
