#include "resolver.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"
#include "names.h"
#include "packet.h"
#include "steer.h"
#include "stream.h"

enum { DNS_PORT = 53, CONNECTIONS = 32, QUESTIONS_A_TURN = 64 };

static struct watch udp_watches[2], tcp_watches[2];

/* A connection with questions, each behind its size in two bytes. The oldest gives way. */
static struct connection {
    struct watch watch;
    size_t size;
    uint8_t data[2 + DNS_MESSAGE_MAX];
} connections[CONNECTIONS];
static unsigned next_connection;

/* Where a datagram was sent to, as the kernel tells it beside the datagram. */
static bool find_destination(struct msghdr *message, struct end *to)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            address_put_4(to->address, ntohl(info.ipi_addr.s_addr));
            return true;
        }
        if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            memcpy(to->address, &info.ipi6_addr, 16);
            return true;
        }
    }
    return false;
}

static void udp_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    for (int turn = 0; turn < QUESTIONS_A_TURN; turn++) {
        struct sockaddr_storage from;
        uint8_t question[DNS_MESSAGE_MAX], answer[DNS_MESSAGE_MAX], packet[DNS_MESSAGE_MAX + HEADERS_MAX];
        _Alignas(struct cmsghdr) uint8_t beside[256];
        struct iovec part = {question, sizeof question};
        struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &part, .msg_iovlen = 1,
                                 .msg_control = beside, .msg_controllen = sizeof beside};
        ssize_t size = recvmsg(watch->fd, &message, 0);
        if (size < 0 && errno != EAGAIN && errno != EINTR)
            continue; /* an earlier answer found nobody */
        if (size < 0)
            return;
        struct end to = {.port = DNS_PORT}, asker;
        if (!find_destination(&message, &to))
            continue;
        steer_read_end(&from, &asker);
        size_t length = names_answer(question, (size_t)size, answer);
        if (length)
            length = datagram_write(packet, sizeof packet, &to, &asker, answer, length);
        if (length)
            steer_send(packet, length, &asker);
    }
}

/* Answers the whole questions that have come. False if the connection is of no more use. */
static bool answer_questions(struct connection *c)
{
    while (c->size >= 2) {
        size_t wanted = (size_t)c->data[0] << 8 | c->data[1];
        if (wanted > DNS_MESSAGE_MAX)
            return false;
        if (c->size < 2 + wanted)
            return true;
        uint8_t answer[2 + DNS_MESSAGE_MAX];
        size_t length = names_answer(c->data + 2, wanted, answer + 2);
        answer[0] = (uint8_t)(length >> 8);
        answer[1] = (uint8_t)length;
        if (!length || send(c->watch.fd, answer, 2 + length, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)(2 + length))
            return false; /* who does not read its answers asks in vain */
        c->size -= 2 + wanted;
        memmove(c->data, c->data + 2 + wanted, c->size);
    }
    return true;
}

static void connection_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    struct connection *c = watch->owner;
    ssize_t n = recv(watch->fd, c->data + c->size, sizeof c->data - c->size, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        c->size += (size_t)n;
    if (n <= 0 || !answer_questions(c))
        watch_close(watch);
}

static void tcp_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    int fd = accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct connection *c = &connections[next_connection++ % CONNECTIONS];
    watch_close(&c->watch);
    c->size = 0;
    c->watch = (struct watch){.fd = fd, .ready = connection_ready, .owner = c};
    watch_interest(&c->watch, EPOLLIN);
}

void resolver_start(const int udp[2], const int tcp[2])
{
    for (int i = 0; i < CONNECTIONS; i++)
        connections[i].watch.fd = -1;
    for (int family = 0; family < 2; family++) {
        udp_watches[family] = (struct watch){.fd = udp[family], .ready = udp_ready};
        tcp_watches[family] = (struct watch){.fd = tcp[family], .ready = tcp_ready};
        watch_interest(&udp_watches[family], EPOLLIN);
        watch_interest(&tcp_watches[family], EPOLLIN);
    }
}
