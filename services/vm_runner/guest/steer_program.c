#include "steer_program.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "routes.h"

enum { DNS_PORT = 53, CODE_MAX = 160, JUMPS_MAX = 64 };

/* Where a jump can go. */
enum label { V6, TCP, WAITS, ASSIGN, PASS, DROP, KEYED, LABELS, FREE_LABEL = LABELS, LABELS_MAX = LABELS + 8 };

/* On the program's stack: a key of the table of admitted connections, and a place in the map of sockets. */
enum { KEY_AT = -(int)sizeof(struct connection_key), INDEX_AT = KEY_AT - 4 };

/* Instructions that are being written, and jumps whose targets are not known yet. */
struct code {
    struct bpf_insn instructions[CODE_MAX];
    unsigned count, jump_count, next_label;
    struct {
        unsigned at, label;
    } jumps[JUMPS_MAX];
    unsigned labels[LABELS_MAX];
};

int steer_bpf(unsigned command, void *attributes, unsigned size)
{
    return (int)syscall(SYS_bpf, command, attributes, size);
}

static void emit(struct code *c, uint8_t op, uint8_t dst, uint8_t src, int offset, int32_t value)
{
    c->instructions[c->count++] = (struct bpf_insn){
        .code = op, .dst_reg = dst & 15, .src_reg = src & 15, .off = (int16_t)offset, .imm = value};
}

static void jump(struct code *c, uint8_t op, uint8_t dst, uint32_t value, unsigned label)
{
    c->jumps[c->jump_count].at = c->count;
    c->jumps[c->jump_count++].label = label;
    emit(c, op, dst, 0, 0, (int32_t)value);
}

static void put_label(struct code *c, unsigned label)
{
    c->labels[label] = c->count;
}

static void resolve_jumps(struct code *c)
{
    for (unsigned i = 0; i < c->jump_count; i++) {
        unsigned at = c->jumps[i].at;
        c->instructions[at].off = (int16_t)((int)c->labels[c->jumps[i].label] - (int)at - 1);
    }
}

#define CONTEXT(field) ((int)offsetof(struct bpf_sk_lookup, field))

static void load(struct code *c, uint8_t dst, int offset)
{
    emit(c, BPF_LDX | BPF_MEM | BPF_W, dst, BPF_REG_6, offset, 0);
}

static void move(struct code *c, uint8_t dst, uint8_t src)
{
    emit(c, BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0);
}

static void set(struct code *c, uint8_t dst, int32_t value)
{
    emit(c, BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, value);
}

static void store(struct code *c, uint8_t src, int at)
{
    emit(c, BPF_STX | BPF_MEM | BPF_W, BPF_REG_10, src, at, 0);
}

static void store_number(struct code *c, uint32_t value, int at)
{
    emit(c, BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, at, (int32_t)value);
}

static void if_equal(struct code *c, uint8_t dst, uint32_t value, unsigned label)
{
    jump(c, BPF_JMP32 | BPF_JEQ | BPF_K, dst, value, label);
}

static void unless_equal(struct code *c, uint8_t dst, uint32_t value, unsigned label)
{
    jump(c, BPF_JMP32 | BPF_JNE | BPF_K, dst, value, label);
}

static void go(struct code *c, unsigned label)
{
    jump(c, BPF_JMP | BPF_JA, 0, 0, label);
}

static void call(struct code *c, int function)
{
    emit(c, BPF_JMP | BPF_CALL, 0, 0, 0, function);
}

static void load_map(struct code *c, uint8_t dst, int map)
{
    emit(c, BPF_LD | BPF_DW | BPF_IMM, dst, BPF_PSEUDO_MAP_FD, 0, map);
    emit(c, 0, 0, 0, 0, 0);
}

static void look_up(struct code *c, int map, int key_at)
{
    load_map(c, BPF_REG_1, map);
    move(c, BPF_REG_2, BPF_REG_10);
    emit(c, BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, key_at);
    call(c, BPF_FUNC_map_lookup_elem);
}

static void finish(struct code *c, unsigned label, int32_t value)
{
    put_label(c, label);
    set(c, BPF_REG_0, value);
    emit(c, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

/* ---- the parts ---- */

enum { LOCAL_AT = KEY_AT + (int)offsetof(struct connection_key, local),
       REMOTE_AT = KEY_AT + (int)offsetof(struct connection_key, remote) };

static void put_mapped(struct code *c, int at)
{
    store_number(c, 0, at);
    store_number(c, 0, at + 4);
    store_number(c, htonl(0xFFFF), at + 8);
}

/* Passes what is no business of ours; puts the addresses into the key. Register 9 has the family's first place. */
static void look_at_4(struct code *c, const struct steering *steering)
{
    load(c, BPF_REG_2, CONTEXT(local_ip4));
    move(c, BPF_REG_3, BPF_REG_2);
    uint32_t mask = steering->everything ? 0xFF000000u : steering->mask;
    emit(c, BPF_ALU | BPF_AND | BPF_K, BPF_REG_3, 0, 0, (int32_t)htonl(mask));
    if (steering->everything) {
        if_equal(c, BPF_REG_3, htonl(INADDR_LOOPBACK & mask), PASS);
        if_equal(c, BPF_REG_2, htonl(steering->network + OWN_HOST), PASS);
    } else {
        unless_equal(c, BPF_REG_3, htonl(steering->network), PASS);
    }
    put_mapped(c, LOCAL_AT);
    store(c, BPF_REG_2, LOCAL_AT + 12);
    put_mapped(c, REMOTE_AT);
    load(c, BPF_REG_2, CONTEXT(remote_ip4));
    store(c, BPF_REG_2, REMOTE_AT + 12);
    set(c, BPF_REG_9, FAMILY_4 * PLACES);
}

/* Passes packets to one address of IPv6. */
static void pass_address_6(struct code *c, const uint8_t address[16])
{
    unsigned other = FREE_LABEL + c->next_label++;
    for (int i = 0; i < 4; i++) {
        uint32_t word;
        memcpy(&word, address + 4 * i, sizeof word);
        load(c, BPF_REG_2, CONTEXT(local_ip6) + 4 * i);
        unless_equal(c, BPF_REG_2, word, other);
    }
    go(c, PASS);
    put_label(c, other);
}

static void look_at_6(struct code *c)
{
    pass_address_6(c, (const uint8_t[16]){[15] = 1});
    pass_address_6(c, OWN_ADDRESS_6);
    for (int i = 0; i < 4; i++) {
        load(c, BPF_REG_2, CONTEXT(local_ip6) + 4 * i);
        store(c, BPF_REG_2, LOCAL_AT + 4 * i);
        load(c, BPF_REG_2, CONTEXT(remote_ip6) + 4 * i);
        store(c, BPF_REG_2, REMOTE_AT + 4 * i);
    }
    set(c, BPF_REG_9, FAMILY_6 * PLACES);
}

/* Chooses the place of the socket, in register 9. */
static void choose(struct code *c, const struct steering *steering)
{
    load(c, BPF_REG_2, CONTEXT(protocol));
    load(c, BPF_REG_3, CONTEXT(local_port));
    emit(c, BPF_LDX | BPF_MEM | BPF_H, BPF_REG_4, BPF_REG_6, CONTEXT(remote_port), 0);
    if_equal(c, BPF_REG_2, IPPROTO_TCP, TCP);
    unless_equal(c, BPF_REG_2, IPPROTO_UDP, DROP);
    if (steering->everything) {
        if_equal(c, BPF_REG_4, htons(DNS_PORT), PASS); /* an answer of ours to a program's own address */
        unless_equal(c, BPF_REG_3, DNS_PORT, DROP);
        emit(c, BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_9, 0, 0, PLACE_UDP);
        go(c, ASSIGN);
    } else {
        go(c, DROP); /* the kernel refuses a program with instructions behind this that nothing reaches */
    }
    put_label(c, TCP);
    if (steering->everything) {
        unless_equal(c, BPF_REG_3, DNS_PORT, KEYED);
        emit(c, BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_9, 0, 0, PLACE_TCP);
        go(c, ASSIGN);
    }
    put_label(c, KEYED);
    store(c, BPF_REG_3, KEY_AT + (int)offsetof(struct connection_key, local_port));
    store(c, BPF_REG_4, KEY_AT + (int)offsetof(struct connection_key, remote_port));
    look_up(c, steering->admitted, KEY_AT);
    jump(c, BPF_JMP | BPF_JNE | BPF_K, BPF_REG_0, 0, ASSIGN); /* the front is the first place */
    emit(c, BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_9, 0, 0, PLACE_DROPPING);
}

static void assign(struct code *c, int sockets)
{
    put_label(c, ASSIGN);
    store(c, BPF_REG_9, INDEX_AT);
    look_up(c, sockets, INDEX_AT);
    jump(c, BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_0, 0, DROP);
    move(c, BPF_REG_7, BPF_REG_0);
    move(c, BPF_REG_1, BPF_REG_6);
    move(c, BPF_REG_2, BPF_REG_7);
    set(c, BPF_REG_3, 0);
    call(c, BPF_FUNC_sk_assign);
    move(c, BPF_REG_8, BPF_REG_0);
    move(c, BPF_REG_1, BPF_REG_7);
    call(c, BPF_FUNC_sk_release);
    jump(c, BPF_JMP | BPF_JNE | BPF_K, BPF_REG_8, 0, DROP);
}

int steer_load_program(const struct steering *steering, int sockets)
{
    static struct code code;
    struct code *c = &code;
    memset(c, 0, sizeof *c); /* the process may have written one for other addresses */
    move(c, BPF_REG_6, BPF_REG_1);
    load(c, BPF_REG_2, CONTEXT(family));
    if_equal(c, BPF_REG_2, AF_INET6, V6);
    unless_equal(c, BPF_REG_2, AF_INET, PASS);
    look_at_4(c, steering);
    go(c, WAITS);
    put_label(c, V6);
    if (steering->everything)
        look_at_6(c);
    else
        go(c, PASS);
    put_label(c, WAITS);
    choose(c, steering);
    assign(c, sockets);
    finish(c, PASS, SK_PASS);
    finish(c, DROP, SK_DROP);
    resolve_jumps(c);
    union bpf_attr attr = {
        .prog_type = BPF_PROG_TYPE_SK_LOOKUP,
        .expected_attach_type = BPF_SK_LOOKUP,
        .insns = (uintptr_t)c->instructions,
        .insn_cnt = c->count,
        .license = (uintptr_t) "none",
    };
    return steer_bpf(BPF_PROG_LOAD, &attr, sizeof attr);
}
