#include "outgoing.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#define __FAVOR_BSD
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "agent.h"
#include "channel.h"
#include "connect.h"
#include "steer.h"
#include "stream.h"

enum {
    WAITING_MAX = 128, /* further SYNs are not taken; programs send them again */
    HEADERS_MAX = 120,
    ARRIVAL_SECONDS = 3, /* from the second SYN to the program's connection; it takes no time unless it gave up */
    OUTGOING_WINDOW = 131072,
};

/* A program's connection that is not there yet. */
struct waiting {
    uint32_t ticket; /* 0: free */
    uint32_t stream; /* 0 until it is admitted */
    bool due;        /* to be asked for */
    uint64_t deadline;
    struct connection_key key;
    uint32_t size;
    uint8_t syn[HEADERS_MAX];
};

static struct waiting waiting[WAITING_MAX];
static uint32_t last_ticket;
static struct steering steering;
static struct watch front, syns, timer;

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

static struct waiting *find_free(void)
{
    for (unsigned i = 0; i < WAITING_MAX; i++)
        if (!waiting[i].ticket)
            return &waiting[i];
    return NULL;
}

static void set_timer(unsigned seconds)
{
    struct itimerspec when = {.it_value.tv_sec = seconds};
    timerfd_settime(timer.fd, 0, &when, NULL);
}

/* ---- packets ---- */

static uint32_t add_words(uint32_t sum, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i + 1 < size; i += 2)
        sum += (uint32_t)data[i] << 8 | data[i + 1];
    return sum;
}

/* Headers have an even number of bytes. */
static void set_tcp_checksum(struct ip *ip, struct tcphdr *tcp, size_t tcp_size)
{
    tcp->th_sum = 0;
    uint32_t sum = add_words(IPPROTO_TCP + (uint32_t)tcp_size, (uint8_t *)&ip->ip_src, 8);
    sum = add_words(sum, (uint8_t *)tcp, tcp_size);
    sum = (sum >> 16) + (sum & 0xFFFF);
    tcp->th_sum = htons((uint16_t) ~(sum + (sum >> 16)));
}

static void send_packet(const struct ip *ip, size_t size)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = ip->ip_dst};
    if (sendto(syns.fd, ip, size, MSG_DONTWAIT, (void *)&to, sizeof to) < 0)
        note("steering: %s", strerror(errno)); /* the program sends its SYN again */
}

/* Takes the headers of a SYN apart and cuts off what is behind them. Returns their size, 0 if it is none. */
static size_t read_syn(uint8_t *packet, size_t size, struct ip **ip, struct tcphdr **tcp)
{
    *ip = (struct ip *)packet;
    size_t ip_size = size < sizeof **ip ? 0 : (*ip)->ip_hl * 4u;
    if (ip_size < sizeof **ip || size < ip_size + sizeof **tcp)
        return 0;
    *tcp = (struct tcphdr *)(packet + ip_size);
    size_t tcp_size = (*tcp)->th_off * 4u;
    if (tcp_size < sizeof **tcp || size < ip_size + tcp_size)
        return 0;
    (*ip)->ip_len = htons((uint16_t)(ip_size + tcp_size));
    set_tcp_checksum(*ip, *tcp, tcp_size);
    return ip_size + tcp_size;
}

/* What a host without a listener answers to a SYN. */
static void send_refusal(const struct waiting *w)
{
    const struct ip *syn_ip = (const struct ip *)w->syn;
    const struct tcphdr *syn = (const struct tcphdr *)(w->syn + syn_ip->ip_hl * 4u);
    struct {
        struct ip ip;
        struct tcphdr tcp;
    } answer = {
        .ip = {.ip_v = 4, .ip_hl = 5, .ip_len = htons(sizeof answer), .ip_ttl = 64, .ip_p = IPPROTO_TCP,
               .ip_src = syn_ip->ip_dst, .ip_dst = syn_ip->ip_src},
        .tcp = {.th_sport = syn->th_dport, .th_dport = syn->th_sport, .th_ack = htonl(ntohl(syn->th_seq) + 1),
                .th_off = 5, .th_flags = TH_RST | TH_ACK},
    };
    set_tcp_checksum(&answer.ip, &answer.tcp, sizeof answer.tcp);
    send_packet(&answer.ip, sizeof answer);
}

/* ---- the programs' side ---- */

static void take_syn(uint8_t *packet, size_t size)
{
    struct ip *ip;
    struct tcphdr *tcp;
    size = read_syn(packet, size, &ip, &tcp);
    if (!size)
        return;
    struct connection_key key = {.local = ip->ip_dst.s_addr, .remote = ip->ip_src.s_addr,
                                 .local_port = ntohs(tcp->th_dport), .remote_port = tcp->th_sport};
    struct waiting *w = find_key(&key);
    if (w && w->stream)
        return; /* our own, sent again */
    if (!w) {
        w = find_free();
        if (!w)
            return;
        *w = (struct waiting){.ticket = ++last_ticket, .due = true, .key = key};
        channel_wake();
    }
    w->size = (uint32_t)size; /* a later SYN counts: the first may be of a program that gave up */
    memcpy(w->syn, packet, size);
}

static void syns_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    _Alignas(8) uint8_t packet[HEADERS_MAX];
    for (unsigned turn = 0; turn < WAITING_MAX; turn++) {
        ssize_t size = recv(watch->fd, packet, sizeof packet, 0);
        if (size < 0)
            return;
        take_syn(packet, (size_t)size);
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
    struct sockaddr_in from, to;
    socklen_t from_size = sizeof from, to_size = sizeof to;
    int fd = accept4(watch->fd, (void *)&from, &from_size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    getsockname(fd, (void *)&to, &to_size);
    struct connection_key key = {.local = to.sin_addr.s_addr, .remote = from.sin_addr.s_addr,
                                 .local_port = ntohs(to.sin_port), .remote_port = from.sin_port};
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

bool outgoing_start(uint32_t network, uint32_t mask, struct failure *failure)
{
    if (!steer_start(&steering, network, mask, failure))
        return false;
    front = (struct watch){.fd = steering.front, .ready = front_ready};
    syns = (struct watch){.fd = steering.syns, .ready = syns_ready};
    timer = (struct watch){.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), .ready = timer_ready};
    watch_interest(&front, EPOLLIN);
    watch_interest(&syns, EPOLLIN);
    watch_interest(&timer, EPOLLIN);
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
        fields_put_number(fields, FIELD_ADDRESS, ntohl(w->key.local));
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
        send_packet((struct ip *)w->syn, w->size);
}

void outgoing_refuse(uint32_t ticket)
{
    struct waiting *w = find_ticket(ticket);
    if (!w || w->stream)
        return;
    send_refusal(w);
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
