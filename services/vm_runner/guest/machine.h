/* The machine around the workload: its root file system, namespaces, limits, and its end. */
#ifndef LNS_MACHINE_H
#define LNS_MACHINE_H

#include "wire.h"

/* First thing of pid 1: basic mounts, modules, loopback, the virtio port. Returns the port's descriptor. */
int machine_boot(void);
/* The virtio port of that name, waited for; -1 with errno set. */
int machine_open_port(const char *name);
void machine_add_entropy(const uint8_t *data, uint32_t size);

/* Mounts the disks of an image and starts the egress process, so that a snapshot of the machine has them. */
void machine_prepare(const uint8_t *data, uint32_t size);
void machine_put_prepared(struct fields *fields);
/*
 * Ends a rehearsal, which is a run without volumes, binds and steering: its processes and limits are gone, what was
 * mounted of the image stays, and the machine can be configured again.
 */
void machine_clear(void);

/* Assembles what the host describes. A second time only repeats the first answer. */
void machine_configure(const uint8_t *data, uint32_t size);
bool machine_is_configured(void);
void machine_put_configured(struct fields *fields);

/* For a snapshot of a run: its processes stand still until they are let go, here or in the runs that begin from it. */
void machine_freeze(void);
void machine_put_frozen(struct fields *fields);
void machine_thaw(void);
/* In a machine that goes on as another run: the fields of CONFIGURE give it that run's names, files and limit; then thaws. */
void machine_renew(const uint8_t *data, uint32_t size);
void machine_put_renewed(struct fields *fields);

/* In a child of the agent: enters the workload's cgroup and namespaces. False with errno set. */
bool machine_enter(void);
/* A new terminal of the workload's own; -1 with errno set. */
int machine_open_terminal(unsigned *number);
/* Ends every process of the workload. */
void machine_end_workload(void);

uint64_t machine_oom_kills(void);
void machine_put_stats(struct fields *fields);

/* Ends everything, writes back and unmounts. */
void machine_unmount(void);
_Noreturn void machine_power_off(void);

#endif
