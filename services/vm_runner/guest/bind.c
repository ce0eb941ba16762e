#include "bind.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"
#include "machine.h"
#include "user.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

/* The host's file server sets the same limits: wire.py of services/vm_runner/file_server. */
enum { CONTENT_MAX = 256 * 1024, MESSAGE_BYTES = CONTENT_MAX + 4096, FUSE_FD = 100, PORT_FD = 101, NAP_MS = 2 };

/* One message under way in each direction. */
struct traffic {
    uint8_t up[MESSAGE_BYTES], down[MESSAGE_BYTES];
    size_t up_size, up_done, down_size;
    uint32_t uid, gid;
};

/* INIT carries the user that the guest shows as the owner of the host's files. */
static void sign(struct traffic *traffic)
{
    struct fuse_in_header *header = (struct fuse_in_header *)traffic->up;
    if (header->opcode == FUSE_INIT) {
        header->uid = traffic->uid;
        header->gid = traffic->gid;
    }
}

static void take_request(struct traffic *traffic)
{
    ssize_t n = read(FUSE_FD, traffic->up, sizeof traffic->up);
    if (n < 0 && errno == ENODEV)
        _exit(0); /* unmounted */
    if (n <= 0)
        return;
    traffic->up_size = (size_t)n;
    traffic->up_done = 0;
    sign(traffic);
}

static void send_request(struct traffic *traffic)
{
    ssize_t n = write(PORT_FD, traffic->up + traffic->up_done, traffic->up_size - traffic->up_done);
    if (n > 0)
        traffic->up_done += (size_t)n;
    if (traffic->up_done == traffic->up_size)
        traffic->up_size = 0;
}

/* Takes what has arrived of an answer, and hands it to the kernel when it is whole. */
static void take_answers(struct traffic *traffic)
{
    for (;;) {
        uint32_t wanted = sizeof(uint32_t);
        if (traffic->down_size >= wanted)
            memcpy(&wanted, traffic->down, sizeof wanted);
        if (wanted < sizeof(uint32_t) || wanted > sizeof traffic->down)
            _exit(1);
        if (traffic->down_size >= sizeof(struct fuse_out_header) && traffic->down_size == wanted) {
            /* ENOENT: who asked was killed meanwhile. */
            if (write(FUSE_FD, traffic->down, wanted) < 0 && errno == ENODEV)
                _exit(0);
            traffic->down_size = 0;
            continue;
        }
        ssize_t n = read(PORT_FD, traffic->down + traffic->down_size, wanted - traffic->down_size);
        if (n <= 0)
            return;
        traffic->down_size += (size_t)n;
    }
}

/*
 * Carries messages until the mount or the host's server is gone. When this process ends the kernel answers
 * whatever is asked, and was asked, with ENOTCONN. The port hangs up until the server listens.
 */
static _Noreturn void forward(const struct identity *shown)
{
    static struct traffic traffic;
    bool connected = false;
    traffic.uid = shown->uid;
    traffic.gid = shown->gid;
    for (;;) {
        struct pollfd fds[] = {
            {.fd = FUSE_FD, .events = traffic.up_size ? 0 : POLLIN},
            {.fd = PORT_FD, .events = POLLIN | (traffic.up_size ? POLLOUT : 0)},
        };
        poll(fds, 2, -1);
        if (fds[1].revents & POLLHUP) {
            if (connected)
                _exit(1);
            poll(NULL, 0, NAP_MS);
            continue;
        }
        connected = true;
        take_answers(&traffic);
        if (!traffic.up_size)
            take_request(&traffic);
        if (traffic.up_size)
            send_request(&traffic);
    }
}

static _Noreturn void be_forwarder(int fuse, int port, const struct identity *shown)
{
    if (dup2(fuse, FUSE_FD) < 0 || dup2(port, PORT_FD) < 0)
        _exit(1);
    syscall(SYS_close_range, 3u, (unsigned)FUSE_FD - 1, 0u);
    syscall(SYS_close_range, (unsigned)PORT_FD + 1, ~0u, 0u);
    prctl(PR_SET_NAME, "lns-bind", 0, 0, 0);
    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0); /* the kernel may write back through it when memory is short */
    forward(shown);
}

/* The image's files are looked at by a process that has them as its root. */
static bool find_shown(const char *user, struct identity *shown)
{
    int ends[2];
    uint32_t ids[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        if (chroot(ROOT_PATH) < 0 || identity_find(user, shown))
            _exit(1);
        ids[0] = shown->uid;
        ids[1] = shown->gid;
        _exit(write(ends[1], ids, sizeof ids) != sizeof ids);
    }
    close(ends[1]);
    bool found = pid > 0 && read(ends[0], ids, sizeof ids) == sizeof ids;
    close(ends[0]);
    waitpid(pid, NULL, 0);
    *shown = (struct identity){.uid = found ? ids[0] : 0, .gid = found ? ids[1] : 0};
    return found;
}

bool bind_mount(const char *port, const char *where, bool is_file, bool read_only, const char *user,
                struct failure *failure)
{
    static struct identity shown;
    char options[128];
    find_shown(user, &shown); /* a missing user is reported when a process starts as it */
    int port_fd = machine_open_port(port);
    int fuse = open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fuse < 0 || port_fd < 0)
        return failed_at(failure, "%s", fuse < 0 ? "fuse" : port);
    snprintf(options, sizeof options, "fd=%d,rootmode=%o,user_id=0,group_id=0,allow_other,max_read=%d", fuse,
             is_file ? S_IFREG | 0644 : S_IFDIR | 0755, CONTENT_MAX);
    unsigned long flags = MS_NOSUID | MS_NODEV | (read_only ? MS_RDONLY : 0);
    bool mounted = mount("lns", where, "fuse", flags, options) == 0;
    pid_t pid = mounted ? fork() : -1;
    if (pid == 0)
        be_forwarder(fuse, port_fd, &shown);
    if (pid < 0)
        failed_at(failure, "bind at %s", port);
    close(fuse);
    close(port_fd);
    /* A root is never looked up, so sendfile(2) would see the size 0 until its first stat. */
    struct stat status;
    if (pid > 0 && is_file && stat(where, &status) < 0)
        return failed_at(failure, "bind at %s", port);
    return pid > 0;
}
