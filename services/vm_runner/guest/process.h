/* The processes that the host asked for: the workload and what is executed beside it. */
#ifndef LNS_PROCESS_H
#define LNS_PROCESS_H

#include "wire.h"

/* Starts a process; one with a known id is reported again. */
void process_start(uint32_t id, const uint8_t *data, uint32_t size);
void process_forget(uint32_t id);
void process_signal(uint32_t id, const uint8_t *data, uint32_t size);
void process_resize(uint32_t id, const uint8_t *data, uint32_t size);
/* Children have changed. */
void processes_reap(void);
/* Describes a process whose state is due; returns its id, 0 if no state is due. */
uint32_t process_put_state(struct fields *fields);
/* Every state is due again. */
void processes_restart(void);
uint32_t process_highest_id(void);
/* Waits for the end of every process, which was brought about, and forgets them with their ids. */
void processes_clear(void);

#endif
