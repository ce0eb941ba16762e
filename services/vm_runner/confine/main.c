/*
 * Starts a program confined: `lns-confine SWITCHES -- PROGRAM ARGUMENTS`. docs/vmm-confinement.md says what each
 * measure is for.
 *
 * The program becomes a child of whoever called, not of this process, which ends as soon as the program's pid is
 * recorded; the program is executed only after that. It gets descriptors 0 to 2 of the caller and those that are
 * asked for, no other.
 */
#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BACKLOG = 8, PID_FILE_SIZE = 12 };

#define SYSCALL_CLOSE_RANGE 436

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0 || close(fd) < 0)
        fail("write %s", path);
}

static void close_inherited(void)
{
    if (syscall(SYSCALL_CLOSE_RANGE, FIRST_DESCRIPTOR, ~0u, 0) == 0)
        return;
    for (int fd = FIRST_DESCRIPTOR; fd < sysconf(_SC_OPEN_MAX); fd++) /* Linux before 5.9 */
        close(fd);
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        fail("listen at %s", path);
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, BACKLOG) < 0)
        fail("listen at %s", path);
    return fd;
}

static void open_descriptors(const struct options *options)
{
    for (unsigned i = 0; i < options->descriptor_count; i++) {
        const struct descriptor *wanted = &options->descriptors[i];
        int fd = wanted->kind == OPEN_LISTEN ? listen_at(wanted->path)
                                             : open(wanted->path, wanted->kind == OPEN_WRITE ? O_RDWR : O_RDONLY);
        if (fd < 0)
            fail("open %s", wanted->path);
        if (fd != FIRST_DESCRIPTOR + (int)i) {
            errno = EBADF;
            fail("descriptor %d of %s", fd, wanted->path);
        }
    }
}

/* It has its size before there is a process to record: a full disk is found out in time. */
static int make_pid_file(const char *path)
{
    char blank[PID_FILE_SIZE];
    memset(blank, ' ', sizeof blank);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, blank, sizeof blank) != sizeof blank)
        fail("make %s", path);
    return fd;
}

static void join_cgroups(const struct options *options)
{
    char path[4096];
    for (unsigned i = 0; i < options->cgroup_count; i++) {
        snprintf(path, sizeof path, "%s/cgroup.procs", options->cgroups[i]);
        write_text(path, "0");
    }
}

/* The program's one user and group, under their own numbers; who has no privilege gives up groups for that. */
static void map_user(pid_t pid, uid_t uid, gid_t gid, bool is_privileged)
{
    char path[64], map[64];
    if (!is_privileged) {
        snprintf(path, sizeof path, "/proc/%d/setgroups", pid);
        write_text(path, "deny");
    }
    snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
    snprintf(map, sizeof map, "%u %u 1", uid, uid);
    write_text(path, map);
    snprintf(path, sizeof path, "/proc/%d/gid_map", pid);
    snprintf(map, sizeof map, "%u %u 1", gid, gid);
    write_text(path, map);
}

/*
 * A program that root starts gets its user namespace when its view is made: the view belongs to the outer one, and
 * whatever the program becomes in the inner one, it can neither mount nor undo a mount. The launcher maps its user.
 */
static void part_users(int launcher)
{
    char byte = 0;
    if (unshare(CLONE_NEWUSER) < 0)
        fail("user namespace");
    if (send(launcher, &byte, 1, MSG_NOSIGNAL) != 1 || read(launcher, &byte, 1) != 1)
        _exit(FAILED); /* the launcher has failed, and said why */
}

static void map_when_parted(int program, pid_t pid, uid_t uid)
{
    char byte;
    if (read(program, &byte, 1) != 1)
        return; /* the program's side has failed, and said why */
    map_user(pid, uid, uid, true);
    if (send(program, &byte, 1, MSG_NOSIGNAL) != 1)
        fail("user namespace");
}

static void set_limits(const struct options *options)
{
    for (unsigned i = 0; i < options->limit_count; i++) {
        const struct limit *limit = &options->limits[i];
        struct rlimit now;
        if (getrlimit(limit->resource, &now) < 0)
            fail("getrlimit %d", limit->resource);
        rlim_t value = limit->value < now.rlim_max ? limit->value : now.rlim_max; /* may not be raised */
        if (setrlimit(limit->resource, &(struct rlimit){value, value}) < 0)
            fail("setrlimit %d", limit->resource);
    }
}

static _Noreturn void run(const struct options *options, int go, int users, int ram_socket)
{
    uid_t uid;
    if (read(go, &uid, sizeof uid) != sizeof uid)
        _exit(FAILED); /* the launcher has failed, and said why */
    setsid();
    if (options->isolate) {
        if (sethostname("vmm", 3) < 0)
            fail("sethostname");
        view_enter(options, uid);
        if (users >= 0)
            part_users(users);
    }
    privileges_drop(options, uid);
    if (options->wait && prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) /* changing the user takes it back */
        fail("prctl");
    set_limits(options);
    if (options->ram)
        ram_await(ram_socket);
    filter_install();
    execv(options->command[0], options->command);
    fail("%s", options->command[0]);
}

static pid_t start(const struct options *options, const int go[2], const int users[2], const int ram_sockets[2])
{
    unsigned long flags = SIGCHLD;
    if (!options->wait)
        flags |= CLONE_PARENT;
    if (options->isolate)
        flags |= CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID;
    if (options->user_namespace && !options->first_uid)
        flags |= CLONE_NEWUSER;
    pid_t pid = (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
    if (pid < 0)
        fail("clone");
    if (pid == 0) {
        close(go[1]);
        if (ram_sockets[0] >= 0)
            close(ram_sockets[0]);
        if (users[0] >= 0)
            close(users[0]);
        run(options, go[0], users[1], ram_sockets[1]);
    }
    return pid;
}

static int wait_for(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            fail("wait");
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int main(int count, char **arguments)
{
    static struct options options;
    int go[2];
    (void)count;
    options_parse(&options, arguments + 1);
    close_inherited();
    umask(077);
    join_cgroups(&options);
    if (options.oom_score) {
        char score[16];
        snprintf(score, sizeof score, "%d", options.oom_score);
        write_text("/proc/self/oom_score_adj", score);
    }
    open_descriptors(&options);
    int pid_file = options.pid_file ? make_pid_file(options.pid_file) : -1;
    int ram = -1, ram_sockets[2] = {-1, -1};
    if (options.ram) {
        ram = open(options.ram, (options.ram_is_shared ? O_RDWR : O_RDONLY) | O_CLOEXEC);
        if (ram < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ram_sockets) < 0)
            fail("open %s", options.ram);
    }
    int users[2] = {-1, -1};
    bool parts_users = options.user_namespace && options.first_uid;
    if (parts_users && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, users) < 0)
        fail("socketpair");
    if (pipe2(go, O_CLOEXEC) < 0)
        fail("pipe");
    pid_t pid = start(&options, go, users, ram_sockets);
    close(go[0]);
    if (options.user_namespace && !parts_users)
        map_user(pid, getuid(), getgid(), false);
    if (pid_file >= 0) {
        char text[PID_FILE_SIZE];
        int size = snprintf(text, sizeof text, "%d\n", pid);
        if (pwrite(pid_file, text, (size_t)size, 0) != size || ftruncate(pid_file, size) < 0)
            fail("write %s", options.pid_file);
    }
    /* A pid belongs to one live process, and so does the user that is made from it. */
    uid_t uid = options.first_uid ? options.first_uid + (uid_t)pid % options.uid_count : getuid();
    if (write(go[1], &uid, sizeof uid) != sizeof uid)
        fail("start %s", options.command[0]);
    if (parts_users) {
        close(users[1]);
        map_when_parted(users[0], pid, uid);
    }
    if (options.ram) {
        close(ram_sockets[1]);
        ram_hand_over(ram_sockets[0], ram);
    }
    return options.wait ? wait_for(pid) : 0;
}
