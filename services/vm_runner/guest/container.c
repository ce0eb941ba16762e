#include "container.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "agent.h"
#include "cgroup.h"
#include "machine.h"
#include "seed.h"
#include "trust.h"

/* Of <linux/mount.h>, which cannot be included beside the C library's; glibc's has them. */
#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#define MOVE_MOUNT_F_EMPTY_PATH 4
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

static const char *const READ_ONLY_SYSTEM_PATHS[] = {
    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
};
static const char *const HIDDEN_SYSTEM_PATHS[] = {
    "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/scsi",
    "/sys/firmware",
};

/* From here on in the new pid 1, whose "/" becomes the workload's; `machine_root` still shows the agent's. */
static int machine_root;

static bool make_directory(const char *path, struct failure *failure)
{
    char partial[4096];
    if (snprintf(partial, sizeof partial, "%s", path) >= (int)sizeof partial) {
        errno = ENAMETOOLONG;
        return failed_at(failure, "%.60s", path);
    }
    for (char *slash = partial; (slash = strchr(slash + 1, '/')) != NULL; *slash = '/') {
        *slash = '\0';
        mkdir(partial, 0755);
    }
    struct stat status;
    mkdir(partial, 0755);
    if (stat(partial, &status) < 0 || !S_ISDIR(status.st_mode)) {
        errno = ENOTDIR;
        return failed_at(failure, "directory %.60s", path);
    }
    return true;
}

/* Makes an empty file to mount on; a link that leads nowhere gives way. */
static bool make_file(const char *path, struct failure *failure)
{
    char directory[4096];
    snprintf(directory, sizeof directory, "%s", path);
    char *slash = strrchr(directory, '/');
    if (slash && slash != directory) {
        *slash = '\0';
        if (!make_directory(directory, failure))
            return false;
    }
    int flags = O_RDONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK;
    int fd = open(path, flags, 0644);
    if (fd < 0 && errno == ENOENT) {
        unlink(path);
        fd = open(path, flags, 0644);
    }
    if (fd < 0)
        return failed_at(failure, "file %.60s", path);
    close(fd);
    return true;
}

/* Mounts what the agent sees at `source` (below `base`, without a way out of it) on `target`. */
static bool bind(const char *base, const char *source, const char *target, struct failure *failure)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
    int base_fd = openat(machine_root, base, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = base_fd < 0 ? -1 : (int)syscall(SYS_openat2, base_fd, source, &how, sizeof how);
    int tree = fd < 0 ? -1 : (int)syscall(SYS_open_tree, fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE | O_CLOEXEC);
    int status = tree < 0 ? -1 : (int)syscall(SYS_move_mount, tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH);
    if (status < 0)
        failed_at(failure, "mount on %.60s", target);
    int fds[] = {tree, fd, base_fd};
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    return status == 0;
}

static bool mount_read_only(const char *path)
{
    return mount(path, path, NULL, MS_BIND | MS_REC, NULL) == 0 &&
           mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0;
}

static bool mount_system(const char *type, const char *path, unsigned long flags, const char *options,
                         struct failure *failure)
{
    if (!make_directory(path, failure))
        return false;
    return mount(type, path, type, flags, options) == 0 || failed_at(failure, "mount of %s on %s", type, path);
}

static bool make_devices(const struct container *container, struct failure *failure)
{
    static const struct {
        const char *path;
        unsigned major, minor;
    } devices[] = {
        {"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7},
        {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0},
    };
    static const char *const links[][2] = {
        {"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"},
        {"/proc/self/fd/2", "/dev/stderr"}, {"pts/ptmx", "/dev/ptmx"},
    };
    char options[64];
    if (!mount_system("tmpfs", "/dev", MS_NOSUID | MS_STRICTATIME, "mode=0755,size=1m", failure))
        return false;
    umask(0);
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        if (mknod(devices[i].path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)) < 0)
            return failed_at(failure, "%s", devices[i].path);
    umask(022);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], links[i][1]) < 0)
            return failed_at(failure, "%s", links[i][1]);
    snprintf(options, sizeof options, "mode=1777,size=%llu",
             (unsigned long long)(container->shm_bytes ? container->shm_bytes : 64u << 20));
    return mount_system("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV | MS_NOEXEC, options, failure) &&
           mount_system("mqueue", "/dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, failure) &&
           make_directory("/dev/pts", failure) && bind(".", "pts", "/dev/pts", failure);
}

static bool mount_systems(const struct container *container, struct failure *failure)
{
    const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (!mount_system("proc", "/proc", flags, NULL, failure) ||
        !mount_system("sysfs", "/sys", flags | MS_RDONLY, NULL, failure) ||
        mount("cgroup2", "/sys/fs/cgroup", "cgroup2", flags | MS_RDONLY, NULL) < 0)
        return failure->error ? false : failed_at(failure, "mount of cgroup2");
    if (!make_devices(container, failure))
        return false;
    for (size_t i = 0; i < sizeof READ_ONLY_SYSTEM_PATHS / sizeof *READ_ONLY_SYSTEM_PATHS; i++)
        if (!mount_read_only(READ_ONLY_SYSTEM_PATHS[i]) && errno != ENOENT)
            return failed_at(failure, "%s", READ_ONLY_SYSTEM_PATHS[i]);
    for (size_t i = 0; i < sizeof HIDDEN_SYSTEM_PATHS / sizeof *HIDDEN_SYSTEM_PATHS; i++) {
        const char *path = HIDDEN_SYSTEM_PATHS[i];
        if (mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=0k") < 0 &&
            mount("/dev/null", path, NULL, MS_BIND, NULL) < 0 && errno != ENOENT)
            return failed_at(failure, "%s", path);
    }
    return true;
}

static bool make_directories(const struct container *container, struct failure *failure)
{
    for (unsigned i = 0; i < container->directory_count; i++)
        if (!make_directory(container->directories[i], failure))
            return false;
    return true;
}

static bool mount_files(const struct container *container, struct failure *failure)
{
    for (unsigned i = 0; i < container->file_count; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        if (!make_file(container->files[i].path, failure) ||
            !bind("files", name, container->files[i].path, failure))
            return false;
    }
    return true;
}

static bool mount_volumes(const struct container *container, struct failure *failure)
{
    for (unsigned i = 0; i < container->volume_count; i++) {
        const struct volume *volume = &container->volumes[i];
        char place[32], name[16];
        if (volume->port) {
            snprintf(name, sizeof name, "%u", i);
            if (!(volume->is_file ? make_file : make_directory)(volume->target, failure) ||
                !bind("volumes", name, volume->target, failure))
                return false;
            continue;
        }
        snprintf(place, sizeof place, "volumes/%u", i);
        if (!volume->read_only && !seed_volume(machine_root, place, volume->target, failure))
            return false;
        /* One that was never written to has nothing yet, and nothing can be made in it here. */
        snprintf(name, sizeof name, "%u/data", i);
        snprintf(place, sizeof place, "volumes/%u/data", i);
        if (faccessat(machine_root, place, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
            snprintf(name, sizeof name, "%u", i);
        if (!make_directory(volume->target, failure) || !bind("volumes", name, volume->target, failure))
            return false;
    }
    return true;
}

/* A mount point cannot be renamed or removed; so each directory above a protected path becomes one. */
static bool pin_ancestors(const char *path, struct failure *failure)
{
    static char pinned[LISTED_MAX * 4][256];
    static unsigned count;
    char partial[4096];
    snprintf(partial, sizeof partial, "%s", path);
    for (char *slash = partial; (slash = strchr(slash + 1, '/')) != NULL; *slash = '/') {
        *slash = '\0';
        bool known = false;
        for (unsigned i = 0; i < count; i++)
            known |= strcmp(pinned[i], partial) == 0;
        if (known)
            continue;
        if (count == sizeof pinned / sizeof *pinned || strlen(partial) >= sizeof *pinned) {
            errno = ENAMETOOLONG;
            return failed_at(failure, "protection of %.60s", path);
        }
        if (mount(partial, partial, NULL, MS_BIND | MS_REC, NULL) < 0)
            return failed_at(failure, "protection of %.60s", partial);
        strcpy(pinned[count++], partial);
    }
    return true;
}

static bool protect(const struct container *container, struct failure *failure)
{
    for (unsigned i = 0; i < container->read_only_count; i++)
        if (!pin_ancestors(container->read_only_paths[i], failure))
            return false;
    for (unsigned i = 0; i < container->read_only_count; i++) {
        const char *path = container->read_only_paths[i];
        if (!bind(READ_ONLY_PATH + 1, path, path, failure))
            return false;
    }
    return true;
}

static bool enter_root(struct failure *failure)
{
    machine_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (machine_root < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || chdir(ROOT_PATH) < 0 ||
        syscall(SYS_pivot_root, ".", ".") < 0)
        return failed_at(failure, "change of the root");
    return true;
}

/* The agent's root lies on top of the workload's until it is taken away. */
static bool leave_machine_root(struct failure *failure)
{
    if (fchdir(machine_root) < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return failed_at(failure, "change of the root");
    close(machine_root);
    return true;
}

/* Before anything of the host is mounted: what is bound there is not the image's to change. */
static bool set_up_trust(const struct container *container)
{
    if (container->authority)
        trust_install(container->authority, strlen(container->authority), machine_root);
    return true;
}

/* Programs that list mounts look there; Docker makes it, too. An image without /etc, or with a file there, is left alone. */
static bool link_mounts(void)
{
    (void)!symlink("/proc/mounts", "/etc/mtab");
    return true;
}

static bool set_up(const struct container *container, struct failure *failure)
{
    umask(022);
    if (unshare(CLONE_NEWCGROUP) < 0)
        return failed_at(failure, "cgroup namespace");
    if (container->hostname && sethostname(container->hostname, strlen(container->hostname)) < 0)
        return failed_at(failure, "host name");
    return enter_root(failure) && mount_systems(container, failure) && set_up_trust(container) &&
           mount_volumes(container, failure) && make_directories(container, failure) &&
           mount_files(container, failure) && link_mounts() && protect(container, failure) && leave_machine_root(failure);
}

static _Noreturn void be_init(const struct container *container, int report)
{
    struct failure failure = {0};
    sigset_t none;
    bool done = set_up(container, &failure);
    if (!done && !failure.error)
        failure.error = EINVAL;
    (void)!write(report, &failure, sizeof failure);
    if (!done)
        _exit(1);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    prctl(PR_SET_NAME, "lns-init", 0, 0, 0);
    syscall(SYS_close_range, 0u, ~0u, 0u);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    signal(SIGCHLD, SIG_IGN); /* orphans are reaped by the kernel */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (;;)
        pause();
}

pid_t container_start(const struct container *container, struct failure *failure)
{
    int report[2];
    if (pipe2(report, O_CLOEXEC) < 0) {
        failed_at(failure, "pipe");
        return -1;
    }
    pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        close(report[0]);
        cgroup_join();
        be_init(container, report[1]);
    }
    close(report[1]);
    if (pid < 0 || read(report[0], failure, sizeof *failure) != sizeof *failure) {
        failed_at(failure, "namespaces");
        pid = -1;
    } else if (failure->error) {
        pid = -1;
    }
    close(report[0]);
    return pid;
}
