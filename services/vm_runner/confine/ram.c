/*
 * How a VMM gets the file of its guest's memory. QEMU insists on opening it for reading and writing, also where it
 * maps it privately, and a VMM that its guest has taken over could then write to a snapshot that others are resumed
 * from. So the path on its command line names no file, and QEMU goes on to make one; that `open` is held by a filter
 * (seccomp_unotify(2)), and the launcher puts a descriptor of its own choice into the VMM: for reading alone where the
 * mapping is private.
 *
 * The launcher then ends. Further attempts to make a file, which QEMU does not do, fail with ENOSYS.
 */
#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PATIENCE_MS = 15000 };

static int send_descriptor(int socket, int fd)
{
    char byte = 0, control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    return sendmsg(socket, &message, 0) == 1 ? 0 : -1;
}

static int receive_descriptor(int socket)
{
    int fd = -1;
    char byte, control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1)
        return -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return fd;
}

void ram_await(int socket)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, O_RDWR | O_CREAT | O_EXCL, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (listener < 0 || send_descriptor(socket, listener) < 0)
        fail("filter of the memory's file");
    close(listener);
    close(socket);
}

static void answer_once(int listener, int ram)
{
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    if (poll(&ready, 1, PATIENCE_MS) != 1 || !(ready.revents & POLLIN))
        return; /* it ended before, or hangs: whoever waits for its guest finds out */
    struct seccomp_notif request = {0};
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) < 0)
        return;
    struct seccomp_notif_addfd answer = {
        .id = request.id, .flags = SECCOMP_ADDFD_FLAG_SEND, .srcfd = (__u32)ram, .newfd_flags = O_CLOEXEC,
    };
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &answer) < 0)
        fail("hand the memory's file over");
}

void ram_hand_over(int socket, int ram)
{
    int listener = receive_descriptor(socket);
    close(socket);
    if (listener < 0)
        return; /* the program's side has failed, and said why */
    answer_once(listener, ram);
    close(listener);
}
