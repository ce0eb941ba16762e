#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define OLD "/.host"

static void make_parents(const char *path)
{
    char part[PATH_MAX];
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part) {
        errno = ENAMETOOLONG;
        fail("%s", path);
    }
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            fail("mkdir %s", part);
        *slash = '/';
    }
}

static void make_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    if (fd < 0)
        fail("make %s", path);
    close(fd);
}

/* A mount from outside a user namespace keeps its restrictions: a remount has to name them again. */
static unsigned long kept_flags(const char *path)
{
    static const struct {
        unsigned long status, mount;
    } FLAGS[] = {{ST_NOEXEC, MS_NOEXEC}, {ST_NODEV, MS_NODEV}, {ST_NOATIME, MS_NOATIME},
                 {ST_NODIRATIME, MS_NODIRATIME}, {ST_RELATIME, MS_RELATIME}};
    struct statvfs status;
    unsigned long flags = 0;
    if (statvfs(path, &status) < 0)
        fail("statvfs %s", path);
    for (unsigned i = 0; i < sizeof FLAGS / sizeof *FLAGS; i++)
        if (status.f_flag & FLAGS[i].status)
            flags |= FLAGS[i].mount;
    return flags;
}

static void bind_read_only(const struct bind *bind, const char *source, bool is_folder, unsigned long flags)
{
    if (is_folder) {
        if (mkdir(bind->target, 0755) < 0)
            fail("mkdir %s", bind->target);
    } else {
        make_file(bind->target);
    }
    if (mount(source, bind->target, NULL, MS_BIND, NULL) < 0)
        fail("mount %s", bind->target);
    flags |= kept_flags(bind->target);
    if (mount(NULL, bind->target, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | flags, NULL) < 0)
        fail("mount %s read-only", bind->target);
}

/* A node of its own, which the program owns: the host's keeps its owner, and no group is needed. Where the view is made
 * in a user namespace, such a node could not be opened. */
static bool make_device(const struct bind *bind, const struct stat *status, uid_t uid)
{
    if (mknod(bind->target, S_IFCHR | 0600, status->st_rdev) < 0) {
        if (errno == EPERM)
            return false;
        fail("mknod %s", bind->target);
    }
    if (chown(bind->target, uid, uid) < 0)
        fail("chown %s", bind->target);
    return true;
}

static void add(const struct bind *bind, uid_t uid, bool has_nodes)
{
    char source[PATH_MAX + sizeof OLD];
    struct stat status;
    snprintf(source, sizeof source, OLD "%s", bind->source);
    if (lstat(source, &status) < 0)
        fail("%s", bind->source);
    make_parents(bind->target);
    if (bind->kind == BIND_DEVICE) {
        if (!has_nodes || !make_device(bind, &status, uid))
            bind_read_only(bind, source, false, MS_NOEXEC);
        return;
    }
    unsigned long flags = MS_NODEV | (bind->kind == BIND_CODE ? 0 : MS_NOEXEC);
    bind_read_only(bind, source, S_ISDIR(status.st_mode), flags);
}

/* The new root is put over the current directory, which nobody else sees, and becomes the root at once. */
static void take_root(void)
{
    char here[PATH_MAX];
    if (!getcwd(here, sizeof here))
        fail("getcwd");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        fail("make mounts private");
    if (mount("lns", here, "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64k,nr_inodes=2048,mode=0755") < 0)
        fail("mount a root");
    if (chdir(here) < 0 || mkdir(OLD + 1, 0700) < 0)
        fail("enter the root");
    if (syscall(SYS_pivot_root, ".", OLD + 1) < 0)
        fail("pivot_root");
    if (chdir("/") < 0)
        fail("chdir /");
}

void view_enter(const struct options *options, uid_t uid)
{
    mode_t private = umask(022); /* the program's user goes through folders that root makes */
    take_root();
    for (unsigned i = 0; i < options->bind_count; i++)
        add(&options->binds[i], uid, options->first_uid != 0);
    if (umount2(OLD, MNT_DETACH) < 0 || rmdir(OLD) < 0)
        fail("leave the host's root");
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL) < 0)
        fail("make the root read-only");
    umask(private);
}
