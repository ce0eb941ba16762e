#include "connect.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"
#include "channel.h"
#include "outgoing.h"
#include "stream.h"

enum { RESULTS = 1024, CONNECT_WINDOW = 131072 };

struct attempt {
    struct watch watch;
    uint32_t id;
    uint16_t port;
    int family;
};

static struct result {
    uint32_t id;
    int error;
} results[RESULTS];
static unsigned results_written, results_sent;

void connect_report(uint32_t id, int error)
{
    results[results_written++ % RESULTS] = (struct result){id, error};
    channel_wake();
}

uint32_t connect_put_result(struct fields *fields)
{
    if (results_sent == results_written)
        return 0;
    if (results_written - results_sent > RESULTS)
        results_sent = results_written - RESULTS;
    struct result result = results[results_sent++ % RESULTS];
    fields_put_number(fields, FIELD_ERRNO, (uint64_t)result.error);
    return result.id;
}

static void try_family(struct attempt *attempt);

static void finish(struct attempt *attempt, int error)
{
    int fd = attempt->watch.fd;
    if (error && attempt->family == AF_INET) { /* some servers listen on ::1 only */
        watch_close(&attempt->watch);
        attempt->family = AF_INET6;
        try_family(attempt);
        return;
    }
    if (!error) {
        watch_interest(&attempt->watch, 0);
        int sink = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        struct stream *stream = sink < 0 ? NULL : stream_open(attempt->id, fd, sink, CONNECT_WINDOW);
        if (stream) {
            stream->is_socket = true;
        } else {
            error = EMFILE;
            if (sink >= 0)
                close(sink);
        }
    }
    if (error)
        watch_close(&attempt->watch);
    connect_report(attempt->id, error);
    free(attempt);
}

static void attempt_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(watch->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    finish(watch->owner, error);
}

static void try_family(struct attempt *attempt)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(attempt->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(attempt->port),
                              .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    bool is_v4 = attempt->family == AF_INET;
    int fd = socket(attempt->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    attempt->watch = (struct watch){.fd = fd, .ready = attempt_ready, .owner = attempt};
    if (fd < 0) {
        finish(attempt, errno);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    int status = connect(fd, is_v4 ? (void *)&v4 : (void *)&v6, is_v4 ? sizeof v4 : sizeof v6);
    if (status == 0 || errno != EINPROGRESS)
        finish(attempt, status == 0 ? 0 : errno);
    else
        watch_interest(&attempt->watch, EPOLLOUT);
}

void connect_start(uint32_t id, const uint8_t *data, uint32_t size)
{
    uint16_t port = 0;
    struct field field;
    while (field_next(&data, &size, &field)) {
        if (field.tag == FIELD_PORT) {
            port = (uint16_t)field_number(&field);
        } else if (field.tag == FIELD_TICKET) {
            outgoing_admit(id, (uint32_t)field_number(&field));
            return;
        }
    }
    struct attempt *attempt = allocate(sizeof *attempt);
    *attempt = (struct attempt){.id = id, .port = port, .family = AF_INET};
    try_family(attempt);
}
