#include "egress.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "agent.h"
#include "channel.h"
#include "control.h"
#include "machine.h"
#include "outgoing.h"
#include "routes.h"
#include "stream.h"

enum { PORT_FD = 3, WANTED_FD = 4, READY_MS = 10000 };

/* ---- in the agent ---- */

static struct watch wishes = {.fd = -1};
static bool started, wanted, ever_wanted;

static void wish_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    char scrap[64];
    ssize_t n = read(watch->fd, scrap, sizeof scrap);
    if (n == 0) {
        note("egress: its process ended");
        watch_close(watch);
    }
    if (n <= 0)
        return;
    wanted = ever_wanted = true;
    channel_wake();
}

bool egress_wants_host(void)
{
    bool was = wanted;
    wanted = false;
    return was;
}

void egress_restart(void)
{
    wanted = ever_wanted;
}

static _Noreturn void become_egress(int port, int wish, uint32_t network, uint32_t mask)
{
    char first[16], second[16];
    snprintf(first, sizeof first, "%08x", network);
    snprintf(second, sizeof second, "%08x", mask);
    int high_port = fcntl(port, F_DUPFD, WANTED_FD + 1), high_wish = fcntl(wish, F_DUPFD, WANTED_FD + 1);
    if (high_port < 0 || high_wish < 0 || dup2(high_port, PORT_FD) < 0 || dup2(high_wish, WANTED_FD) < 0)
        _exit(1);
    close(high_port);
    close(high_wish);
    execl("/proc/self/exe", "lns-egress", "--egress", first, second, (char *)NULL);
    _exit(1);
}

bool egress_start(uint32_t network, uint32_t mask, struct failure *failure)
{
    if (started)
        return true;
    int ends[2], port = machine_open_port("lns.egress");
    if (port < 0 || pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return failed_at(failure, "egress: port");
    if (!routes_start(network, failure))
        return false;
    pid_t pid = fork();
    if (pid == 0)
        become_egress(port, ends[1], network, mask);
    close(port);
    close(ends[1]);
    /* No program may reach out before. */
    if (pid < 0 || poll(&(struct pollfd){.fd = ends[0], .events = POLLIN}, 1, READY_MS) != 1 ||
        read(ends[0], &(char){0}, 1) != 1)
        return failed_at(failure, "egress: process");
    started = true;
    wishes = (struct watch){.fd = ends[0], .ready = wish_ready};
    watch_interest(&wishes, EPOLLIN);
    return true;
}

/* ---- its own process ---- */

static int wish_fd;

static void want_host(void)
{
    (void)!write(wish_fd, "w", 1); /* a full pipe says it already */
}

/* Its connections are those of a worker that is gone; what waits will be asked of the next one. */
static void host_gone(void)
{
    streams_give_up();
    outgoing_restart();
}

void egress_main(int port, int wanted_fd, uint32_t network, uint32_t mask)
{
    struct failure failure = {0};
    prctl(PR_SET_NAME, "lns-egress", 0, 0, 0);
    wish_fd = wanted_fd;
    fcntl(port, F_SETFL, O_NONBLOCK);
    fcntl(port, F_SETFD, FD_CLOEXEC);
    fcntl(wanted_fd, F_SETFD, FD_CLOEXEC);
    control_serve_connections_only();
    channel_on_hang_up(host_gone);
    if ((!in_machine && !routes_start(network, &failure)) || /* a test's network */
        !outgoing_start_everything(network, mask, want_host, &failure)) {
        note("%s: %s", failure.stage, strerror(failure.error));
        exit(1);
    }
    want_host(); /* says that it is ready */
    channel_open(port);
    loop_forever();
}
