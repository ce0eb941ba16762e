#include "cgroup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "files.h"
#include "machine.h"

#define CGROUP "/cgroup/workload"

enum { FREEZE_MILLISECONDS = 3000 };

bool cgroup_limit(uint64_t pids_max, struct failure *failure)
{
    char number[32] = "max";
    if (pids_max)
        snprintf(number, sizeof number, "%llu", (unsigned long long)pids_max);
    return write_text(CGROUP "/pids.max", number) || failed_at(failure, "process limit");
}

bool cgroup_make(uint64_t pids_max, uint64_t memory_max, struct failure *failure)
{
    char number[32];
    if (mkdir("/cgroup", 0700) == 0 &&
        (mount("cgroup2", "/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 ||
         !write_text("/cgroup/cgroup.subtree_control", "+memory +pids +cpu")))
        return failed_at(failure, "cgroup");
    if (mkdir(CGROUP, 0755) < 0)
        return failed_at(failure, "cgroup");
    if (!memory_max) /* the kernel and the agent keep what they need, so that only the workload runs out */
        memory_max = read_number("/proc/meminfo", "MemAvailable:") * 1024 / 100 * 97;
    snprintf(number, sizeof number, "%llu", (unsigned long long)memory_max);
    if (!write_text(CGROUP "/memory.max", number))
        return failed_at(failure, "memory limit");
    return !pids_max || cgroup_limit(pids_max, failure);
}

void cgroup_remove(void)
{
    if (rmdir(CGROUP) < 0)
        note("cgroup: %s", strerror(errno));
}

void cgroup_join(void)
{
    write_text(CGROUP "/cgroup.procs", "0");
}

bool cgroup_freeze(struct failure *failure)
{
    if (!write_text(CGROUP "/cgroup.freeze", "1"))
        return failed_at(failure, "standstill of the workload");
    for (int waited = 0; waited < FREEZE_MILLISECONDS; waited++) {
        if (read_number(CGROUP "/cgroup.events", "frozen "))
            return true;
        usleep(1000);
    }
    cgroup_thaw();
    errno = ETIMEDOUT;
    return failed_at(failure, "standstill of the workload");
}

void cgroup_thaw(void)
{
    if (!write_text(CGROUP "/cgroup.freeze", "0"))
        note("thaw: %s", strerror(errno));
}

uint64_t cgroup_oom_kills(void)
{
    return read_number(CGROUP "/memory.events", "oom_kill ");
}

void cgroup_put_stats(struct fields *fields)
{
    fields_put_number(fields, FIELD_MEMORY_BYTES, read_number(CGROUP "/memory.current", ""));
    fields_put_number(fields, FIELD_PIDS, read_number(CGROUP "/pids.current", ""));
    fields_put_number(fields, FIELD_CPU_NS, read_number(CGROUP "/cpu.stat", "usage_usec ") * 1000);
    fields_put_number(fields, FIELD_OOM_KILLS, machine_oom_kills());
}
