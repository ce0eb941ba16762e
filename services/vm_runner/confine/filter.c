/*
 * The launcher's filter, beside QEMU's own: calls.h lists what passes. Three calls pass on a condition: `clone` makes
 * threads, `tgkill` signals the program itself, `prlimit64` is about its own limits. What is not listed fails and the
 * program goes on: with EPERM, or, where a call is so young that a C library knows an older way, with ENOSYS. Calls of
 * another architecture end the program.
 */
#include "confine.h"

#include "calls.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#if defined __x86_64__
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "unknown architecture"
#endif

#define X32_BIT 0x40000000u

#define DENIED SECCOMP_RET_ERRNO | EPERM
#define ABSENT SECCOMP_RET_ERRNO | ENOSYS

/* The lower half of an argument: both architectures are little-endian. */
#define ARGUMENT(number) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[number]))
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, action)
/* A call that passes where the argument has the bit, or the value. */
#define WITH(call, number, comparison, value)                                                       \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 4), ARGUMENT(number),                               \
        BPF_JUMP(BPF_JMP | comparison | BPF_K, value, 0, 1), RETURN(SECCOMP_RET_ALLOW), RETURN(DENIED)

enum { COUNT = sizeof ALLOWED / sizeof *ALLOWED, MOST = COUNT + 32 };

static unsigned append(struct sock_filter *code, unsigned at, const struct sock_filter *part, size_t size)
{
    memcpy(code + at, part, size);
    return at + (unsigned)(size / sizeof *part);
}

void filter_install(void)
{
    const struct sock_filter checks[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
        RETURN(SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1), /* 32-bit numbers of x86-64 are not listed */
        RETURN(DENIED),
        WITH(SYS_clone, 0, BPF_JSET, CLONE_THREAD),
        WITH(SYS_tgkill, 0, BPF_JEQ, (unsigned)getpid()),
        WITH(SYS_prlimit64, 0, BPF_JEQ, 0),
    };
    const struct sock_filter ends[] = {
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, FIRST_YOUNG, 2, 0),
        RETURN(DENIED),
        RETURN(SECCOMP_RET_ALLOW),
        RETURN(ABSENT),
    };
    struct sock_filter code[MOST];
    unsigned length = append(code, 0, checks, sizeof checks);
    for (unsigned i = 0; i < COUNT; i++)
        code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ALLOWED[i], COUNT - i + 1, 0);
    length = append(code, length, ends, sizeof ends);
    struct sock_fprog program = {(unsigned short)length, code};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        fail("seccomp");
}
