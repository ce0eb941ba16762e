/*
 * The guest agent of lns: pid 1 of a microVM.
 *
 * One thread, one event loop, no decision about security: those are the host's. docs/guest-protocol.md says
 * what it speaks. `lns-agent --channel FD` runs it as an ordinary process without a machine, for tests. With `--egress`
 * and two numbers it is the process that egress.h describes.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "channel.h"
#include "control.h"
#include "egress.h"
#include "machine.h"
#include "process.h"

enum { EVENTS = 64 };

bool in_machine;
static int epoll_fd;

void watch_interest(struct watch *watch, uint32_t events)
{
    if (events == watch->interest || watch->fd < 0)
        return;
    int operation = !events ? EPOLL_CTL_DEL : watch->interest ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    struct epoll_event event = {.events = events, .data.ptr = watch};
    if (epoll_ctl(epoll_fd, operation, watch->fd, &event) < 0)
        note("epoll: %s", strerror(errno));
    watch->interest = events;
}

/* Events that were fetched together with one whose handler closed their watch must not reach it. */
static struct epoll_event fetched[EVENTS];
static int fetched_count;

void watch_close(struct watch *watch)
{
    if (watch->fd < 0)
        return;
    watch_interest(watch, 0);
    close(watch->fd);
    watch->fd = -1;
    for (int i = 0; i < fetched_count; i++)
        if (fetched[i].data.ptr == watch)
            fetched[i].data.ptr = NULL;
}

void *allocate(size_t size)
{
    void *memory = calloc(1, size ? size : 1);
    if (!memory) {
        note("out of memory");
        machine_power_off();
    }
    return memory;
}

void note(const char *format, ...)
{
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "lns-agent: %s\n", text);
    control_notice(text);
}

uint64_t now_ns(int clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void children_changed(struct watch *watch, uint32_t events)
{
    struct signalfd_siginfo info;
    (void)events;
    while (read(watch->fd, &info, sizeof info) > 0)
        ;
    processes_reap();
}

static void watch_children(void)
{
    static struct watch children;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    children = (struct watch){.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), .ready = children_changed};
    watch_interest(&children, EPOLLIN);
}

void loop_forever(void)
{
    for (;;) {
        channel_pump();
        fetched_count = epoll_wait(epoll_fd, fetched, EVENTS, channel_timeout());
        for (int i = 0; i < fetched_count; i++) {
            struct watch *watch = fetched[i].data.ptr;
            if (watch && watch->interest) /* not one that an earlier handler took out */
                watch->ready(watch, fetched[i].events);
        }
        fetched_count = 0;
    }
}

int main(int argc, char **argv)
{
    int channel;
    if (argc == 2 && strcmp(argv[1], "--nothing") == 0)
        return 0; /* a rehearsed process */
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    signal(SIGPIPE, SIG_IGN);
    in_machine = getpid() == 1 && argc < 3;
    if (in_machine) {
        fcntl(STDERR_FILENO, F_SETFL, O_NONBLOCK); /* the console may stand still */
        channel = machine_boot();
    } else if (argc == 4 && strcmp(argv[1], "--egress") == 0) {
        in_machine = getppid() == 1;
        egress_main(3, 4, (uint32_t)strtoul(argv[2], NULL, 16), (uint32_t)strtoul(argv[3], NULL, 16));
    } else if (argc == 3 && strcmp(argv[1], "--channel") == 0) {
        channel = atoi(argv[2]);
        fcntl(channel, F_SETFL, O_NONBLOCK);
        fcntl(channel, F_SETFD, FD_CLOEXEC);
    } else {
        fprintf(stderr, "lns-agent %s is pid 1 of a microVM; for tests: --channel FD\n", LNS_AGENT_VERSION);
        return 2;
    }
    watch_children();
    channel_open(channel);
    loop_forever();
}
