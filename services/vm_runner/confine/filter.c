/*
 * A list of system calls that fail, not of those that pass: what QEMU needs changes with its version. QEMU's own
 * `-sandbox` denies what is obsolete, privileged, or starts programs; this is what it leaves and no VMM of ours
 * needs: new sockets (vsock and netlink are in no namespace), io_uring, which does its work past every filter,
 * namespaces, mounts, other processes' memory, keys, and interfaces that are the kernel's weak spots.
 */
#include "confine.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#if defined __x86_64__
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "unknown architecture"
#endif

#define X32_BIT 0x40000000u

static const unsigned short DENIED[] = {
    SYS_socket, SYS_socketpair, SYS_connect, SYS_bind,
    425 /* io_uring_setup */, 426 /* io_uring_enter */, 427 /* io_uring_register */,
    SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot,
    428 /* open_tree */, 429 /* move_mount */, 430 /* fsopen */, 431 /* fsconfig */, 432 /* fsmount */,
    433 /* fspick */, 442 /* mount_setattr */,
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, 434 /* pidfd_open */,
    438 /* pidfd_getfd */, 440 /* process_madvise */,
    SYS_keyctl, SYS_add_key, SYS_request_key,
    SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_name_to_handle_at, SYS_open_by_handle_at,
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load,
    SYS_fanotify_init, SYS_quotactl, SYS_acct, SYS_personality,
};

enum { COUNT = sizeof DENIED / sizeof *DENIED, CHECKS = 5, LENGTH = CHECKS + COUNT + 2 };

void filter_install(void)
{
    struct sock_filter code[LENGTH] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, COUNT + 1, 0), /* 32-bit numbers of x86-64 are not listed */
    };
    for (unsigned i = 0; i < COUNT; i++)
        code[CHECKS + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, DENIED[i], COUNT - i, 0);
    code[CHECKS + COUNT] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[CHECKS + COUNT + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    struct sock_fprog program = {LENGTH, code};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        fail("seccomp");
}
