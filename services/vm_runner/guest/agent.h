/* What the parts of the guest agent share: the event loop, logging, memory. */
#ifndef LNS_AGENT_H
#define LNS_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* A file descriptor in the event loop. An interest of 0 takes it out, so that a hung-up peer costs nothing. */
struct watch {
    int fd;
    uint32_t interest;
    void (*ready)(struct watch *watch, uint32_t events);
    void *owner;
};
/* Serves what was made ready, for ever. */
_Noreturn void loop_forever(void);
void watch_interest(struct watch *watch, uint32_t events);
/* Takes the descriptor out of the loop and closes it. */
void watch_close(struct watch *watch);

/* Zeroed memory; the agent cannot go on without it, so a failure ends the machine. */
void *allocate(size_t size);

/* A line for the console and, once there is a channel, for the host. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

uint64_t now_ns(int clock);

/* True where the agent is pid 1 of a microVM, false where a test runs it as an ordinary process. */
extern bool in_machine;

#endif
