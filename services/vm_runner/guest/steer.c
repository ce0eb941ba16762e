#include "steer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    FRONT, /* places in the map of sockets */
    DROPPING,
    SOCKETS,
    ADMITTED_MAX = 1024,
    BACKLOG = 128,
    /* No program listens at tcpmux. At any other port, one that listens at all addresses would be in the way. */
    LISTENING_PORT = 1,
    SYN_BYTES = 128, /* the longest headers of IP and TCP have 120 */
    TCP_FLAGS_AT = 13,
    TCP_SYN_ACK = 0x12,
    TCP_SYN = 0x02,
};

static int bpf(enum bpf_cmd command, union bpf_attr *attr)
{
    return (int)syscall(SYS_bpf, command, attr, sizeof *attr);
}

static int make_map(enum bpf_map_type type, uint32_t key_size, uint32_t value_size, uint32_t entries)
{
    union bpf_attr attr = {.map_type = type, .key_size = key_size, .value_size = value_size, .max_entries = entries};
    return bpf(BPF_MAP_CREATE, &attr);
}

static bool put(int map, const void *key, const void *value)
{
    union bpf_attr attr = {.map_fd = (uint32_t)map, .key = (uintptr_t)key, .value = (uintptr_t)value};
    return bpf(BPF_MAP_UPDATE_ELEM, &attr) == 0;
}

/* ---- the program ---- */

#define INSN(op, dst, src, offset, value) \
    {.code = (op), .dst_reg = (dst), .src_reg = (src), .off = (offset), .imm = (int32_t)(value)}
#define LOAD(size, dst, src, offset) INSN(BPF_LDX | BPF_MEM | (size), dst, src, offset, 0)
#define STORE(src, offset) INSN(BPF_STX | BPF_MEM | BPF_W, BPF_REG_10, src, offset, 0)
#define STORE_NUMBER(offset, value) INSN(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, offset, value)
#define MOVE(dst, src) INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0)
#define SET(dst, value) INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, value)
#define ADD(dst, value) INSN(BPF_ALU64 | BPF_ADD | BPF_K, dst, 0, 0, value)
#define AND32(dst, value) INSN(BPF_ALU | BPF_AND | BPF_K, dst, 0, 0, value)
#define UNLESS32(dst, value, skip) INSN(BPF_JMP32 | BPF_JNE | BPF_K, dst, 0, skip, value)
#define UNLESS(dst, value, skip) INSN(BPF_JMP | BPF_JNE | BPF_K, dst, 0, skip, value)
#define IF(dst, value, skip) INSN(BPF_JMP | BPF_JEQ | BPF_K, dst, 0, skip, value)
#define MAP(dst, fd) INSN(BPF_LD | BPF_DW | BPF_IMM, dst, BPF_PSEUDO_MAP_FD, 0, fd), INSN(0, 0, 0, 0, 0)
#define CALL(function) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, function)
#define RETURN(value) SET(BPF_REG_0, value), INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define CONTEXT(field) ((int16_t)offsetof(struct bpf_sk_lookup, field))

enum { KEY_AT = -16, INDEX_AT = -20 }; /* on the program's stack */

/* The number before a line is its place; a jump skips (target - place - 1) lines. MAP and RETURN take two places. */
static int load_program(int admitted, int sockets, uint32_t network, uint32_t mask)
{
    const struct bpf_insn program[] = {
        /*  0 */ MOVE(BPF_REG_6, BPF_REG_1),
        /*  1 */ LOAD(BPF_W, BPF_REG_2, BPF_REG_6, CONTEXT(family)),
        /*  2 */ UNLESS32(BPF_REG_2, AF_INET, 36), /* to 39 */
        /*  3 */ LOAD(BPF_W, BPF_REG_2, BPF_REG_6, CONTEXT(local_ip4)),
        /*  4 */ MOVE(BPF_REG_3, BPF_REG_2),
        /*  5 */ AND32(BPF_REG_3, htonl(mask)),
        /*  6 */ UNLESS32(BPF_REG_3, htonl(network), 32), /* to 39 */
        /*  7 */ LOAD(BPF_W, BPF_REG_3, BPF_REG_6, CONTEXT(protocol)),
        /*  8 */ UNLESS32(BPF_REG_3, IPPROTO_TCP, 32), /* to 41: no datagram stays here by mistake */
        /*  9 */ STORE(BPF_REG_2, KEY_AT),
        /* 10 */ LOAD(BPF_W, BPF_REG_3, BPF_REG_6, CONTEXT(remote_ip4)),
        /* 11 */ STORE(BPF_REG_3, KEY_AT + 4),
        /* 12 */ LOAD(BPF_W, BPF_REG_3, BPF_REG_6, CONTEXT(local_port)),
        /* 13 */ STORE(BPF_REG_3, KEY_AT + 8),
        /* 14 */ LOAD(BPF_H, BPF_REG_3, BPF_REG_6, CONTEXT(remote_port)),
        /* 15 */ STORE(BPF_REG_3, KEY_AT + 12),
        /* 16 */ MAP(BPF_REG_1, admitted),
        /* 18 */ MOVE(BPF_REG_2, BPF_REG_10),
        /* 19 */ ADD(BPF_REG_2, KEY_AT),
        /* 20 */ CALL(BPF_FUNC_map_lookup_elem),
        /* 21 */ STORE_NUMBER(INDEX_AT, DROPPING),
        /* 22 */ IF(BPF_REG_0, 0, 1), /* to 24 */
        /* 23 */ STORE_NUMBER(INDEX_AT, FRONT),
        /* 24 */ MAP(BPF_REG_1, sockets),
        /* 26 */ MOVE(BPF_REG_2, BPF_REG_10),
        /* 27 */ ADD(BPF_REG_2, INDEX_AT),
        /* 28 */ CALL(BPF_FUNC_map_lookup_elem),
        /* 29 */ IF(BPF_REG_0, 0, 11), /* to 41 */
        /* 30 */ MOVE(BPF_REG_7, BPF_REG_0),
        /* 31 */ MOVE(BPF_REG_1, BPF_REG_6),
        /* 32 */ MOVE(BPF_REG_2, BPF_REG_7),
        /* 33 */ SET(BPF_REG_3, 0),
        /* 34 */ CALL(BPF_FUNC_sk_assign),
        /* 35 */ MOVE(BPF_REG_8, BPF_REG_0),
        /* 36 */ MOVE(BPF_REG_1, BPF_REG_7),
        /* 37 */ CALL(BPF_FUNC_sk_release),
        /* 38 */ UNLESS(BPF_REG_8, 0, 2), /* to 41 */
        /* 39 */ RETURN(SK_PASS),
        /* 41 */ RETURN(SK_DROP),
    };
    union bpf_attr attr = {
        .prog_type = BPF_PROG_TYPE_SK_LOOKUP,
        .expected_attach_type = BPF_SK_LOOKUP,
        .insns = (uintptr_t)program,
        .insn_cnt = sizeof program / sizeof *program,
        .license = (uintptr_t) "none",
    };
    return bpf(BPF_PROG_LOAD, &attr);
}

/* The link holds the program for as long as the agent lives. */
static bool attach(int program)
{
    int namespace = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (namespace < 0)
        return false;
    union bpf_attr attr = {
        .link_create = {.prog_fd = (uint32_t)program, .target_fd = (uint32_t)namespace, .attach_type = BPF_SK_LOOKUP}};
    int link = bpf(BPF_LINK_CREATE, &attr);
    close(namespace);
    return link >= 0;
}

/* ---- the sockets ---- */

static bool filter(int fd, const struct sock_filter *code, size_t count)
{
    struct sock_fprog program = {.len = (unsigned short)count, .filter = (struct sock_filter *)code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

static int listen_at(uint32_t address)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(LISTENING_PORT), .sin_addr.s_addr = htonl(address)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && bind(fd, (void *)&at, sizeof at) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    return -1;
}

static int open_dropping(uint32_t address)
{
    static const struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    int fd = listen_at(address);
    return fd >= 0 && filter(fd, nothing, 1) ? fd : -1;
}

static int open_syns(uint32_t network, uint32_t mask)
{
    const struct sock_filter syns[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 16), /* the destination */
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, network, 0, 5),
        BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0), /* over the header of IP */
        BPF_STMT(BPF_LD | BPF_B | BPF_IND, TCP_FLAGS_AT),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, TCP_SYN_ACK),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TCP_SYN, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SYN_BYTES),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    int fd = socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd >= 0 && filter(fd, syns, sizeof syns / sizeof *syns) &&
        setsockopt(fd, IPPROTO_IP, IP_HDRINCL, &(int){1}, sizeof(int)) == 0)
        return fd;
    return -1;
}

bool steer_start(struct steering *steering, uint32_t network, uint32_t mask, struct failure *failure)
{
    int sockets = make_map(BPF_MAP_TYPE_SOCKMAP, sizeof(uint32_t), sizeof(uint32_t), SOCKETS);
    steering->admitted = make_map(BPF_MAP_TYPE_HASH, sizeof(struct connection_key), sizeof(uint8_t), ADMITTED_MAX);
    if (sockets < 0 || steering->admitted < 0)
        return failed_at(failure, "steering: maps");
    steering->front = listen_at(network + 1);
    int dropping = open_dropping(network + 2);
    steering->syns = open_syns(network, mask);
    if (steering->front < 0 || dropping < 0 || steering->syns < 0 ||
        !put(sockets, &(uint32_t){FRONT}, &(uint32_t){(uint32_t)steering->front}) ||
        !put(sockets, &(uint32_t){DROPPING}, &(uint32_t){(uint32_t)dropping}))
        return failed_at(failure, "steering: sockets");
    int program = load_program(steering->admitted, sockets, network, mask);
    if (program < 0 || !attach(program))
        return failed_at(failure, "steering: program");
    close(program);
    return true;
}

bool steer_admit(const struct steering *steering, const struct connection_key *key)
{
    return put(steering->admitted, key, &(uint8_t){1});
}

void steer_forget(const struct steering *steering, const struct connection_key *key)
{
    union bpf_attr attr = {.map_fd = (uint32_t)steering->admitted, .key = (uintptr_t)key};
    bpf(BPF_MAP_DELETE_ELEM, &attr);
}
