#include "outgoing.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "agent.h"
#include "channel.h"
#include "connect.h"
#include "names.h"
#include "packet.h"
#include "resolver.h"
#include "routes.h"
#include "steer.h"
#include "stream.h"

enum {
    WAITING_MAX = 512, /* further SYNs are not taken; programs send them again */
    WAITING_FOR_ONE = 64, /* of them to one address and port, so that one host that is asked about holds up no other */
    ARRIVAL_SECONDS = 3, /* from the second SYN to the program's connection; it takes no time unless it gave up */
    OUTGOING_WINDOW = 131072,
    DNS_PORT = 53,
};

/* A program's connection that is not there yet. */
struct waiting {
    uint32_t ticket; /* 0: free */
    uint32_t stream; /* 0 until it is admitted */
    bool due;        /* to be asked for */
    uint64_t deadline;
    struct connection_key key;
    struct syn syn;
};

static struct waiting waiting[WAITING_MAX];
static uint32_t last_ticket;
static struct steering steering;
static struct watch fronts[FAMILIES], syns[FAMILIES], timer;
static void (*host_wanted)(void);

static struct waiting *find_ticket(uint32_t ticket)
{
    for (unsigned i = 0; ticket && i < WAITING_MAX; i++)
        if (waiting[i].ticket == ticket)
            return &waiting[i];
    return NULL;
}

static struct waiting *find_key(const struct connection_key *key)
{
    for (unsigned i = 0; i < WAITING_MAX; i++)
        if (waiting[i].ticket && memcmp(&waiting[i].key, key, sizeof *key) == 0)
            return &waiting[i];
    return NULL;
}

/* A free place for a connection; NULL if too many wait, or too many for the same end. */
static struct waiting *find_free(const struct connection_key *key)
{
    struct waiting *free_place = NULL;
    unsigned same = 0;
    for (unsigned i = 0; i < WAITING_MAX; i++) {
        struct waiting *w = &waiting[i];
        if (!w->ticket)
            free_place = free_place ? free_place : w;
        else if (w->key.local_port == key->local_port && memcmp(w->key.local, key->local, sizeof key->local) == 0)
            same++;
    }
    return same < WAITING_FOR_ONE ? free_place : NULL;
}

static void set_timer(unsigned seconds)
{
    struct itimerspec when = {.it_value.tv_sec = seconds};
    timerfd_settime(timer.fd, 0, &when, NULL);
}

static void send_refusal(const struct syn *syn)
{
    uint8_t packet[HEADERS_MAX];
    steer_send(packet, refusal_write(packet, syn), &syn->from);
}

/* ---- the programs' side ---- */

/* Whether a SYN is steered: sockets that show SYNs show all of them. */
static bool is_ours(const struct end *to)
{
    static const uint8_t loopback[16] = {[15] = 1};
    bool is_4 = address_is_4(to->address);
    uint32_t address = is_4 ? address_4(to->address) : 0;
    if (!steering.everything)
        return is_4 && (address & steering.mask) == steering.network;
    if (to->port == DNS_PORT)
        return false;
    if (is_4)
        return address >> 24 != 127 && address != steering.network + OWN_HOST;
    return memcmp(to->address, loopback, 16) != 0 && memcmp(to->address, OWN_ADDRESS_6, 16) != 0;
}

/* Whether an address stands for names in general, and for none. */
static bool stands_for_nobody(const struct end *to)
{
    if (!steering.everything || !address_is_4(to->address))
        return false;
    uint32_t address = address_4(to->address);
    return (address & steering.mask) == steering.network && !names_find(address);
}

static void take_syn(const struct syn *syn)
{
    if (!is_ours(&syn->to))
        return;
    if (stands_for_nobody(&syn->to)) {
        send_refusal(syn);
        return;
    }
    struct connection_key key = steer_key(&syn->from, &syn->to);
    struct waiting *w = find_key(&key);
    if (w && w->stream)
        return; /* our own, sent again */
    if (!w) {
        w = find_free(&key);
        if (!w)
            return;
        *w = (struct waiting){.ticket = ++last_ticket, .due = true, .key = key};
        channel_wake();
    }
    w->syn = *syn; /* a later SYN counts: the first may be of a program that gave up */
    if (host_wanted && !channel_has_host())
        host_wanted();
}

static ssize_t receive_4(int fd, struct syn *syn, bool *sound)
{
    uint8_t packet[HEADERS_MAX];
    ssize_t size = recv(fd, packet, sizeof packet, 0);
    *sound = size > 0 && syn_read_4(syn, packet, (size_t)size);
    return size;
}

static ssize_t receive_6(int fd, struct syn *syn, bool *sound)
{
    uint8_t segment[HEADERS_MAX];
    struct sockaddr_in6 from;
    _Alignas(struct cmsghdr) uint8_t beside[128];
    struct iovec part = {segment, sizeof segment};
    struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &part, .msg_iovlen = 1,
                             .msg_control = beside, .msg_controllen = sizeof beside};
    ssize_t size = recvmsg(fd, &message, 0);
    *sound = false;
    struct cmsghdr *c = size > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (!c || c->cmsg_level != IPPROTO_IPV6 || c->cmsg_type != IPV6_PKTINFO)
        return size;
    struct in6_pktinfo info;
    memcpy(&info, CMSG_DATA(c), sizeof info);
    *sound = syn_read_6(syn, from.sin6_addr.s6_addr, info.ipi6_addr.s6_addr, segment, (size_t)size);
    return size;
}

static void syns_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    bool is_4 = watch == &syns[FAMILY_4], sound = false;
    for (unsigned turn = 0; turn < 128; turn++) {
        struct syn syn = {0};
        if ((is_4 ? receive_4(watch->fd, &syn, &sound) : receive_6(watch->fd, &syn, &sound)) < 0)
            return;
        if (sound)
            take_syn(&syn);
    }
}

/* Ends the wait of a connection that was admitted. */
static void settle(struct waiting *w, int error)
{
    steer_forget(&steering, &w->key);
    connect_report(w->stream, error);
    w->ticket = 0;
}

static int open_stream(uint32_t id, int fd)
{
    int sink = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    struct stream *stream = sink < 0 ? NULL : stream_open(id, fd, sink, OUTGOING_WINDOW);
    if (stream) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        stream->is_socket = true;
        return 0;
    }
    if (sink >= 0)
        close(sink);
    return EMFILE;
}

static void front_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    struct sockaddr_storage from, to;
    socklen_t from_size = sizeof from, to_size = sizeof to;
    int fd = accept4(watch->fd, (void *)&from, &from_size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct end near, far;
    getsockname(fd, (void *)&to, &to_size);
    steer_read_end(&from, &near);
    steer_read_end(&to, &far);
    struct connection_key key = steer_key(&near, &far);
    struct waiting *w = find_key(&key);
    int error = w && w->stream ? open_stream(w->stream, fd) : ECONNABORTED;
    if (error) {
        socket_give_up(fd);
        close(fd);
    }
    if (w && w->stream)
        settle(w, error);
}

static void timer_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    uint64_t expirations;
    (void)!read(watch->fd, &expirations, sizeof expirations);
    bool more = false;
    for (unsigned i = 0; i < WAITING_MAX; i++) {
        struct waiting *w = &waiting[i];
        if (!w->ticket || !w->stream)
            continue;
        if (now_ns(CLOCK_MONOTONIC) >= w->deadline)
            settle(w, ECONNABORTED);
        else
            more = true;
    }
    if (more)
        set_timer(1);
}

static bool start(struct failure *failure)
{
    if (!steer_start(&steering, failure))
        return false;
    for (int family = 0; family < FAMILIES; family++) {
        fronts[family] = (struct watch){.fd = steering.front[family], .ready = front_ready};
        syns[family] = (struct watch){.fd = steering.syns[family], .ready = syns_ready};
        watch_interest(&fronts[family], EPOLLIN);
        watch_interest(&syns[family], EPOLLIN);
    }
    timer = (struct watch){.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), .ready = timer_ready};
    watch_interest(&timer, EPOLLIN);
    return true;
}

bool outgoing_start_peers(uint32_t network, uint32_t mask, struct failure *failure)
{
    steering = (struct steering){.network = network, .mask = mask};
    return start(failure);
}

bool outgoing_start_everything(uint32_t network, uint32_t mask, void (*wanted)(void), struct failure *failure)
{
    steering = (struct steering){.everything = true, .network = network, .mask = mask};
    host_wanted = wanted;
    names_start(network, mask);
    if (!start(failure))
        return false;
    resolver_start(steering.udp, steering.tcp);
    return true;
}

/* ---- the host's side ---- */

uint32_t outgoing_put_request(struct fields *fields)
{
    for (unsigned i = 0; i < WAITING_MAX; i++) {
        struct waiting *w = &waiting[i];
        if (!w->ticket || !w->due)
            continue;
        w->due = false;
        const char *name = NULL;
        if (steering.everything && address_is_4(w->key.local))
            name = names_find(address_4(w->key.local));
        if (name)
            fields_put_text(fields, FIELD_NAME, name);
        else
            fields_put(fields, FIELD_ADDRESS, w->key.local, sizeof w->key.local);
        fields_put_number(fields, FIELD_PORT, w->key.local_port);
        return w->ticket;
    }
    return 0;
}

void outgoing_admit(uint32_t id, uint32_t ticket)
{
    struct waiting *w = find_ticket(ticket);
    if (!w || w->stream) {
        connect_report(id, ENOENT);
        return;
    }
    w->stream = id;
    w->due = false;
    w->deadline = now_ns(CLOCK_MONOTONIC) + ARRIVAL_SECONDS * 1000000000ull;
    set_timer(ARRIVAL_SECONDS);
    if (steer_admit(&steering, &w->key))
        steer_send(w->syn.packet, w->syn.size, &w->syn.to);
}

void outgoing_refuse(uint32_t ticket)
{
    struct waiting *w = find_ticket(ticket);
    if (!w || w->stream)
        return;
    send_refusal(&w->syn);
    w->ticket = 0;
}

void outgoing_restart(void)
{
    for (unsigned i = 0; i < WAITING_MAX; i++) {
        struct waiting *w = &waiting[i];
        if (!w->ticket)
            continue;
        if (w->stream)
            steer_forget(&steering, &w->key);
        w->stream = 0;
        w->due = true;
    }
}
