#include "rootfs.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

enum { DISK_WAIT_MS = 10000 };

bool failed_at(struct failure *failure, const char *format, ...)
{
    va_list arguments;
    failure->error = errno;
    va_start(arguments, format);
    vsnprintf(failure->stage, sizeof failure->stage, format, arguments);
    va_end(arguments);
    return false;
}

static bool has_serial(const char *device, const char *serial)
{
    char path[64], found[64] = "";
    snprintf(path, sizeof path, "/sys/block/%.16s/serial", device);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    (void)!fgets(found, sizeof found, file);
    fclose(file);
    found[strcspn(found, "\n")] = '\0';
    return strcmp(found, serial) == 0;
}

bool disk_find(const char *serial, char path[32], struct failure *failure)
{
    for (int waited = 0; waited < DISK_WAIT_MS; waited += 2) {
        DIR *directory = opendir("/sys/block");
        struct dirent *entry;
        while (directory && (entry = readdir(directory))) {
            if (strncmp(entry->d_name, "vd", 2) == 0 && has_serial(entry->d_name, serial)) {
                snprintf(path, 32, "/dev/%.16s", entry->d_name);
                closedir(directory);
                return true;
            }
        }
        if (directory)
            closedir(directory);
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    errno = ENODEV;
    return failed_at(failure, "disk %s", serial);
}

static bool mount_disk(const char *serial, const char *where, const char *type, unsigned long flags,
                       const char *options, struct failure *failure)
{
    char device[32];
    if (!disk_find(serial, device, failure))
        return false;
    mkdir(where, 0700);
    if (mount(device, where, type, flags, options) < 0)
        return failed_at(failure, "mount of disk %s", serial);
    return true;
}

/* A root that is new takes over what the image's root is; overlayfs shows the upper one's. */
static bool make_upper(struct failure *failure)
{
    struct stat root;
    if (mkdir(UPPER_PATH "/work", 0700) < 0 && errno != EEXIST)
        return failed_at(failure, "writable layer");
    if (mkdir(UPPER_PATH "/upper", 0755) < 0)
        return errno == EEXIST ? true : failed_at(failure, "writable layer");
    if (stat(LOWER_PATH "/m", &root) < 0)
        return true; /* no image: root owns the empty root */
    if (chown(UPPER_PATH "/upper", root.st_uid, root.st_gid) < 0 ||
        chmod(UPPER_PATH "/upper", root.st_mode & 07777) < 0)
        return failed_at(failure, "writable layer");
    return true;
}

static bool mount_overlay(const char *where, const char *lower, bool writable, struct failure *failure)
{
    char options[4096];
    /* xino: one device and one set of inode numbers over all layers, as `du -x` and readdir's readers expect. */
    int size = snprintf(options, sizeof options, "xino=on,metacopy=on,redirect_dir=on,lowerdir=%s%s", lower,
                        writable ? ",upperdir=" UPPER_PATH "/upper,workdir=" UPPER_PATH "/work" : "");
    if (size >= (int)sizeof options) {
        errno = E2BIG;
        return failed_at(failure, "overlay of too many layers");
    }
    mkdir(where, 0755);
    if (mount("overlay", where, "overlay", MS_NODEV | (writable ? 0 : MS_RDONLY), options) < 0)
        return failed_at(failure, "overlay");
    return true;
}

/* What is mounted already. */
static bool image_mounted, root_mounted, read_only_mounted, is_in_memory;
static char lower[4096];

static bool mount_image(const struct rootfs *rootfs, struct failure *failure)
{
    char where[32];
    size_t size = (size_t)snprintf(lower, sizeof lower, LOWER_PATH "/m");
    mkdir(LOWER_PATH, 0700);
    mkdir(LOWER_PATH "/m", 0755);
    if (rootfs->metadata_disk &&
        !mount_disk(rootfs->metadata_disk, LOWER_PATH "/m", "erofs", MS_RDONLY, rootfs->no_acl ? "noacl" : NULL,
                    failure))
        return false;
    for (unsigned i = 0; i < rootfs->pack_count; i++) {
        snprintf(where, sizeof where, LOWER_PATH "/%u", i);
        if (!mount_disk(rootfs->packs[i], where, "erofs", MS_RDONLY, NULL, failure))
            return false;
        size += (size_t)snprintf(lower + size, sizeof lower - size, "::%s", where);
        if (size >= sizeof lower) {
            errno = E2BIG;
            return failed_at(failure, "overlay of too many layers");
        }
    }
    return true;
}

static bool mount_upper(const struct rootfs *rootfs, struct failure *failure)
{
    mkdir(UPPER_PATH, 0700);
    is_in_memory = !rootfs->writable_disk;
    if (is_in_memory)
        return mount("tmpfs", UPPER_PATH, "tmpfs", 0, "mode=0700") == 0 ||
               failed_at(failure, "writable layer in memory");
    return mount_disk(rootfs->writable_disk, UPPER_PATH, "ext4", MS_NOATIME, "discard,noinit_itable", failure);
}

static bool mount_read_only(const struct rootfs *rootfs, struct failure *failure)
{
    if (rootfs->pack_count > 0)
        return mount_overlay(READ_ONLY_PATH, lower, false, failure);
    /* overlayfs refuses a single layer; an image without objects is complete by itself. */
    mkdir(READ_ONLY_PATH, 0755);
    return mount(LOWER_PATH "/m", READ_ONLY_PATH, NULL, MS_BIND, NULL) == 0 || failed_at(failure, "read-only view");
}

bool rootfs_prepare(const struct rootfs *rootfs, struct failure *failure)
{
    if (!image_mounted && !mount_image(rootfs, failure))
        return false;
    image_mounted = true;
    return !rootfs->writable_disk || rootfs_mount(rootfs, failure);
}

bool rootfs_mount(const struct rootfs *rootfs, struct failure *failure)
{
    if (!image_mounted && !mount_image(rootfs, failure))
        return false;
    image_mounted = true;
    if (!root_mounted &&
        (!mount_upper(rootfs, failure) || !make_upper(failure) || !mount_overlay(ROOT_PATH, lower, true, failure)))
        return false;
    root_mounted = true;
    if (!read_only_mounted && rootfs->needs_read_only && !mount_read_only(rootfs, failure))
        return false;
    read_only_mounted |= rootfs->needs_read_only;
    return true;
}

void rootfs_clear(void)
{
    if (!root_mounted || !is_in_memory)
        return;
    umount2(ROOT_PATH, MNT_DETACH);
    umount2(UPPER_PATH, MNT_DETACH);
    root_mounted = false;
}
