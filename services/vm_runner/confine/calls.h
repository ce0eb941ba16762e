/*
 * The system calls of a VMM, by purpose: what QEMU was seen to make from its start to its end, with emulation and with
 * KVM (docs/vmm-confinement.md says how they are learned), and the calls of the same purpose that another version of
 * QEMU or of the C library makes in their place. What is not here fails.
 */
#ifndef LNS_CALLS_H
#define LNS_CALLS_H

#include <sys/syscall.h>

#ifndef SYS_newfstatat
#define SYS_newfstatat SYS_fstatat /* as some C libraries spell it */
#endif

/* From this number on all architectures agree; a C library may be older than a call. */
enum {
    FIRST_YOUNG = 424, NR_close_range = 436, NR_faccessat2 = 439, NR_epoll_pwait2 = 441, NR_futex_waitv = 449,
};

static const unsigned short ALLOWED[] = {
    /* its start: it is executed, the C library sets itself up, QEMU installs its own filter */
    SYS_execve, SYS_set_tid_address, SYS_set_robust_list, SYS_get_robust_list, SYS_rseq, SYS_prctl, SYS_seccomp,
    /* what is open: disks, sockets, pipes, /dev/kvm */
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_preadv2,
    SYS_pwritev2, SYS_lseek, SYS_close, NR_close_range, SYS_dup, SYS_dup3, SYS_fcntl, SYS_ioctl,
    /* disks: their holes, their sizes, what has to last */
    SYS_fsync, SYS_fdatasync, SYS_sync_file_range, SYS_ftruncate, SYS_fallocate, SYS_fadvise64, SYS_copy_file_range,
    /* files of its view, which is read-only: libraries, modules, firmware; the names of its sockets, at its end */
    SYS_openat, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_statfs, SYS_fstatfs, SYS_readlinkat, SYS_faccessat,
    NR_faccessat2, SYS_getdents64, SYS_getcwd, SYS_unlinkat,
    /* memory, the guest's too; code that the emulation writes */
    SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_brk, SYS_msync, SYS_mincore, SYS_membarrier,
    SYS_memfd_create, SYS_get_mempolicy, SYS_set_mempolicy,
    /* threads: their locks and their ends; `clone` is among those with a condition */
    SYS_futex, NR_futex_waitv, SYS_gettid, SYS_exit, SYS_exit_group, SYS_sched_yield, SYS_sched_getaffinity,
    SYS_getcpu, SYS_restart_syscall,
    /* signals that arrive; `tgkill` is among those with a condition */
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigsuspend, SYS_rt_sigtimedwait,
    SYS_rt_sigpending, SYS_sigaltstack, SYS_signalfd4,
    /* waiting for descriptors */
    SYS_ppoll, SYS_pselect6, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, NR_epoll_pwait2, SYS_eventfd2,
    SYS_pipe2,
    /* clocks */
    SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday, SYS_timerfd_create,
    SYS_timerfd_settime, SYS_timerfd_gettime,
    /* sockets that listen, and their connections */
    SYS_listen, SYS_accept, SYS_accept4, SYS_recvmsg, SYS_recvfrom, SYS_recvmmsg, SYS_sendmsg, SYS_sendto,
    SYS_sendmmsg, SYS_shutdown, SYS_getsockopt, SYS_setsockopt, SYS_getsockname, SYS_getpeername,
    /* who it is, on what, and what it has used */
    SYS_getpid, SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getgroups, SYS_getresuid,
    SYS_getresgid, SYS_getpgid, SYS_getsid, SYS_getrusage, SYS_uname, SYS_sysinfo, SYS_getrandom, SYS_umask,
#if defined __x86_64__
    /* older forms, which aarch64 does not have */
    SYS_arch_prctl, SYS_dup2, SYS_open, SYS_stat, SYS_lstat, SYS_readlink, SYS_access, SYS_getdents, SYS_unlink,
    SYS_poll, SYS_select, SYS_epoll_create, SYS_epoll_wait, SYS_eventfd, SYS_signalfd, SYS_pipe, SYS_time,
    SYS_getrlimit, SYS_getpgrp,
#endif
};

#endif
