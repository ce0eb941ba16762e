#include "steer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"
#include "routes.h"
#include "steer_program.h"

#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif

enum {
    ADMITTED_MAX = 1024,
    BACKLOG = 128,
    /* No program listens at tcpmux. At any other port, one that listens at all addresses would be in the way. */
    LISTENING_PORT = 1,
    SYN_BYTES = 128, /* the longest headers of IP and TCP have 120 */
    TCP_FLAGS_AT = 13,
    TCP_SYN_ACK = 0x12,
    TCP_SYN = 0x02,
};

/* The last parts of the addresses at which the agent itself listens. */
enum { FRONT_HOST = 1, DROPPING_HOST = 2, RESOLVER_HOST = 3 };

static int senders[FAMILIES] = {-1, -1};

static int make_map(enum bpf_map_type type, uint32_t key_size, uint32_t value_size, uint32_t entries)
{
    union bpf_attr attr = {.map_type = type, .key_size = key_size, .value_size = value_size, .max_entries = entries};
    return steer_bpf(BPF_MAP_CREATE, &attr, sizeof attr);
}

static bool put(int map, const void *key, const void *value)
{
    union bpf_attr attr = {.map_fd = (uint32_t)map, .key = (uintptr_t)key, .value = (uintptr_t)value};
    return steer_bpf(BPF_MAP_UPDATE_ELEM, &attr, sizeof attr) == 0;
}

/* The link holds the program for as long as the agent lives. */
static bool attach(int program)
{
    int namespace = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (namespace < 0)
        return false;
    union bpf_attr attr = {
        .link_create = {.prog_fd = (uint32_t)program, .target_fd = (uint32_t)namespace, .attach_type = BPF_SK_LOOKUP}};
    int link = steer_bpf(BPF_LINK_CREATE, &attr, sizeof attr);
    close(namespace);
    return link >= 0;
}

/* ---- the sockets ---- */

static bool filter(int fd, const struct sock_filter *code, size_t count)
{
    struct sock_fprog program = {.len = (unsigned short)count, .filter = (struct sock_filter *)code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

static bool switch_on(int fd, int level, int option)
{
    return setsockopt(fd, level, option, &(int){1}, sizeof(int)) == 0;
}

/* A socket at one of the agent's addresses; -1 with errno set. */
static int bind_at(const struct steering *steering, int family, int type, uint32_t host)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(LISTENING_PORT),
                             .sin_addr.s_addr = htonl(steering->network + OWN_HOST + host)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(LISTENING_PORT)};
    memcpy(&v6.sin6_addr, OWN_ADDRESS_6, 16);
    v6.sin6_addr.s6_addr[15] = (uint8_t)(OWN_HOST + host);
    bool is_4 = family == FAMILY_4;
    int fd = socket(is_4 ? AF_INET : AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (is_4 || switch_on(fd, IPPROTO_IPV6, IPV6_V6ONLY)) &&
        (is_4 || switch_on(fd, IPPROTO_IPV6, IPV6_FREEBIND)) &&
        bind(fd, is_4 ? (void *)&v4 : (void *)&v6, is_4 ? sizeof v4 : sizeof v6) == 0)
        return fd;
    return -1;
}

static int listen_at(const struct steering *steering, int family, uint32_t host)
{
    int fd = bind_at(steering, family, SOCK_STREAM, host);
    return fd >= 0 && listen(fd, BACKLOG) == 0 ? fd : -1;
}

static int open_dropping(const struct steering *steering, int family)
{
    static const struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    int fd = listen_at(steering, family, DROPPING_HOST);
    return fd >= 0 && filter(fd, nothing, 1) ? fd : -1;
}

/* Packets of IPv4 come with their header, of IPv6 without. */
static int open_syns(int family)
{
    const struct sock_filter syns_4[] = {
        BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0), /* over the header of IP */
        BPF_STMT(BPF_LD | BPF_B | BPF_IND, TCP_FLAGS_AT),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, TCP_SYN_ACK),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TCP_SYN, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SYN_BYTES),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    const struct sock_filter syns_6[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, TCP_FLAGS_AT),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, TCP_SYN_ACK),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TCP_SYN, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SYN_BYTES),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    bool is_4 = family == FAMILY_4;
    int fd = socket(is_4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    bool filtered = fd >= 0 && (is_4 ? filter(fd, syns_4, sizeof syns_4 / sizeof *syns_4)
                                     : filter(fd, syns_6, sizeof syns_6 / sizeof *syns_6));
    return filtered && (is_4 || switch_on(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO)) ? fd : -1;
}

/* What is sent has its own header of IP. */
static int open_sender(int family)
{
    static const struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    int fd = socket(family == FAMILY_4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_RAW);
    int mark = ROUTED_MARK;
    return fd >= 0 && filter(fd, nothing, 1) && setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) == 0 ? fd : -1;
}

static int open_udp(const struct steering *steering, int family)
{
    int fd = bind_at(steering, family, SOCK_DGRAM, RESOLVER_HOST);
    bool told = fd >= 0 && (family == FAMILY_4 ? switch_on(fd, IPPROTO_IP, IP_PKTINFO)
                                               : switch_on(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO));
    return told ? fd : -1;
}

static bool put_socket(int sockets, int family, int place, int fd)
{
    uint32_t key = (uint32_t)(family * PLACES + place), value = (uint32_t)fd;
    return fd >= 0 && put(sockets, &key, &value);
}

static bool open_family(struct steering *steering, int sockets, int family)
{
    steering->front[family] = listen_at(steering, family, FRONT_HOST);
    steering->syns[family] = open_syns(family);
    senders[family] = open_sender(family);
    if (!put_socket(sockets, family, PLACE_FRONT, steering->front[family]) ||
        !put_socket(sockets, family, PLACE_DROPPING, open_dropping(steering, family)) || steering->syns[family] < 0 ||
        senders[family] < 0)
        return false;
    if (!steering->everything)
        return true;
    steering->udp[family] = open_udp(steering, family);
    steering->tcp[family] = listen_at(steering, family, RESOLVER_HOST);
    return put_socket(sockets, family, PLACE_UDP, steering->udp[family]) &&
           put_socket(sockets, family, PLACE_TCP, steering->tcp[family]);
}

bool steer_start(struct steering *steering, struct failure *failure)
{
    int sockets = make_map(BPF_MAP_TYPE_SOCKMAP, sizeof(uint32_t), sizeof(uint32_t), FAMILIES * PLACES);
    steering->admitted = make_map(BPF_MAP_TYPE_HASH, sizeof(struct connection_key), sizeof(uint8_t), ADMITTED_MAX);
    if (sockets < 0 || steering->admitted < 0)
        return failed_at(failure, "steering: maps");
    steering->front[FAMILY_6] = steering->syns[FAMILY_6] = -1;
    for (int family = 0; family < (steering->everything ? FAMILIES : 1); family++)
        if (!open_family(steering, sockets, family))
            return failed_at(failure, "steering: sockets of IPv%d", family == FAMILY_4 ? 4 : 6);
    int program = steer_load_program(steering, sockets);
    if (program < 0 || !attach(program))
        return failed_at(failure, "steering: program");
    close(program);
    return true;
}

struct connection_key steer_key(const struct end *from, const struct end *to)
{
    struct connection_key key = {.local_port = to->port, .remote_port = htons(from->port)};
    memcpy(key.local, to->address, sizeof key.local);
    memcpy(key.remote, from->address, sizeof key.remote);
    return key;
}

bool steer_admit(const struct steering *steering, const struct connection_key *key)
{
    return put(steering->admitted, key, &(uint8_t){1});
}

void steer_forget(const struct steering *steering, const struct connection_key *key)
{
    union bpf_attr attr = {.map_fd = (uint32_t)steering->admitted, .key = (uintptr_t)key};
    steer_bpf(BPF_MAP_DELETE_ELEM, &attr, sizeof attr);
}

void steer_read_end(const struct sockaddr_storage *from, struct end *end)
{
    if (from->ss_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, from, sizeof v4);
        address_put_4(end->address, ntohl(v4.sin_addr.s_addr));
        end->port = ntohs(v4.sin_port);
    } else {
        struct sockaddr_in6 v6;
        memcpy(&v6, from, sizeof v6);
        memcpy(end->address, &v6.sin6_addr, 16);
        end->port = ntohs(v6.sin6_port);
    }
}

void steer_send(const uint8_t *packet, size_t size, const struct end *to)
{
    bool is_4 = address_is_4(to->address);
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address_4(to->address))};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    memcpy(&v6.sin6_addr, to->address, 16);
    if (sendto(senders[is_4 ? FAMILY_4 : FAMILY_6], packet, size, MSG_DONTWAIT, is_4 ? (void *)&v4 : (void *)&v6,
               is_4 ? sizeof v4 : sizeof v6) < 0)
        note("steering: %s", strerror(errno)); /* a program sends its SYN, or its question, again */
}
