#include "archive.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tar.h"

enum { PAX_MAX = 1 << 16 };

struct entry {
    char path[PATH_BYTES], link[PATH_BYTES];
    uint64_t size;
    struct stat status;
    char type;
};

static unsigned char buffer[COPY_BYTES];

static bool take(void *data, size_t size)
{
    char *at = data;
    while (size) {
        ssize_t n = read(0, at, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

static bool skip(uint64_t size)
{
    while (size) {
        size_t part = size < sizeof buffer ? (size_t)size : sizeof buffer;
        if (!take(buffer, part))
            return false;
        size -= part;
    }
    return true;
}

static uint64_t octal(const char *text, size_t size)
{
    uint64_t value = 0;
    size_t i = 0;
    while (i < size && text[i] == ' ')
        i++;
    for (; i < size && text[i] >= '0' && text[i] <= '7'; i++)
        value = value << 3 | (uint64_t)(text[i] - '0');
    return value;
}

static bool is_sound(const struct header *header)
{
    unsigned sum = 0;
    const unsigned char *bytes = (const unsigned char *)header;
    size_t start = offsetof(struct header, checksum);
    for (size_t i = 0; i < sizeof *header; i++)
        sum += i >= start && i < start + sizeof header->checksum ? ' ' : bytes[i];
    return sum == octal(header->checksum, sizeof header->checksum);
}

/* What pax records say of the next entry; `has` marks what is set. */
struct overrides {
    char path[PATH_BYTES], link[PATH_BYTES];
    uint64_t size, uid, gid;
    bool has_path, has_link, has_size, has_uid, has_gid;
};

static bool read_record(struct overrides *over, const char *key, const char *value, size_t size)
{
    if (strcmp(key, "path") == 0 || strcmp(key, "linkpath") == 0) {
        bool is_path = *key == 'p';
        if (size >= PATH_BYTES)
            return false;
        memcpy(is_path ? over->path : over->link, value, size + 1);
        *(is_path ? &over->has_path : &over->has_link) = true;
    } else if (strcmp(key, "size") == 0) {
        over->size = strtoull(value, NULL, 10);
        over->has_size = true;
    } else if (strcmp(key, "uid") == 0) {
        over->uid = strtoull(value, NULL, 10);
        over->has_uid = true;
    } else if (strcmp(key, "gid") == 0) {
        over->gid = strtoull(value, NULL, 10);
        over->has_gid = true;
    }
    return true;
}

static bool read_pax(struct overrides *over, uint64_t size)
{
    static char records[PAX_MAX + 1];
    if (size > PAX_MAX || !take(records, (size_t)size) || !skip(-size & (BLOCK - 1)))
        return false;
    for (size_t at = 0; at < size;) {
        char *space, *equals;
        unsigned long long length = strtoull(records + at, &space, 10);
        if (length < 5 || length > size - at || *space != ' ' || records[at + length - 1] != '\n')
            return false;
        records[at + length - 1] = '\0';
        equals = strchr(space, '=');
        if (!equals)
            return false;
        *equals = '\0';
        if (!read_record(over, space + 1, equals + 1, strlen(equals + 1)))
            return false;
        at += length;
    }
    return true;
}

static void fill(struct entry *entry, const struct header *header, const struct overrides *over)
{
    if (over->has_path)
        strcpy(entry->path, over->path);
    else if (header->prefix[0] && memcmp(header->magic, "ustar", 6) == 0)
        snprintf(entry->path, sizeof entry->path, "%.155s/%.100s", header->prefix, header->name);
    else
        snprintf(entry->path, sizeof entry->path, "%.100s", header->name);
    if (over->has_link)
        strcpy(entry->link, over->link);
    else
        snprintf(entry->link, sizeof entry->link, "%.100s", header->link);
    entry->type = header->type;
    entry->size = over->has_size ? over->size : octal(header->size, sizeof header->size);
    entry->status.st_mode = (mode_t)octal(header->mode, sizeof header->mode) & 07777;
    entry->status.st_uid = (uid_t)(over->has_uid ? over->uid : octal(header->uid, sizeof header->uid));
    entry->status.st_gid = (gid_t)(over->has_gid ? over->gid : octal(header->gid, sizeof header->gid));
    entry->status.st_mtime = (time_t)octal(header->mtime, sizeof header->mtime);
}

static bool leads_out(const char *path)
{
    if (*path == '/' || !*path)
        return true;
    while (*path) {
        size_t length = strcspn(path, "/");
        if (length == 2 && memcmp(path, "..", 2) == 0)
            return true;
        path += length + (path[length] == '/');
    }
    return false;
}

static int open_below(int root, const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = RESOLVE_BENEATH};
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

/* Opens the directory that an entry goes into, made where it is missing; `name` is its last name there. */
static int open_parent(int root, char *path, const char **name)
{
    for (size_t length = strlen(path); length > 1 && path[length - 1] == '/'; length--)
        path[length - 1] = '\0';
    int parent = open_below(root, ".", O_PATH | O_DIRECTORY);
    for (char *slash; parent >= 0 && (slash = strchr(path, '/')); path = slash + 1) {
        *slash = '\0';
        if (*path && strcmp(path, ".") != 0) {
            mkdirat(parent, path, 0755);
            int next = open_below(parent, path, O_PATH | O_DIRECTORY);
            close(parent);
            parent = next;
        }
        *slash = '/';
    }
    *name = path;
    return parent;
}

static bool write_file(int parent, const char *name, uint64_t size)
{
    int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    bool done = fd >= 0;
    for (uint64_t left = size; done && left;) {
        size_t part = left < sizeof buffer ? (size_t)left : sizeof buffer;
        done = take(buffer, part);
        for (size_t at = 0; done && at < part;) {
            ssize_t n = write(fd, buffer + at, part - at);
            done = n > 0;
            at += n > 0 ? (size_t)n : 0;
        }
        left -= part;
    }
    if (fd >= 0)
        close(fd);
    return done && skip(-size & (BLOCK - 1));
}

static bool make(int root, int parent, const char *name, struct entry *entry)
{
    if (entry->type == '5') {
        struct stat there;
        if (mkdirat(parent, name, 0700) == 0)
            return true;
        if (errno != EEXIST || fstatat(parent, name, &there, AT_SYMLINK_NOFOLLOW) < 0)
            return false;
        errno = ENOTDIR; /* what exists and is no directory, also a link to one, is not replaced by one */
        return S_ISDIR(there.st_mode);
    }
    if (unlinkat(parent, name, 0) < 0 && errno != ENOENT)
        return false;
    if (entry->type == '2')
        return symlinkat(entry->link, parent, name) == 0;
    if (entry->type == '1') {
        const char *target;
        int directory = leads_out(entry->link) ? -1 : open_parent(root, entry->link, &target);
        bool done = directory >= 0 && linkat(directory, target, parent, name, 0) == 0;
        if (directory >= 0)
            close(directory);
        return done;
    }
    return write_file(parent, name, entry->size);
}

static int unpack_entry(int root, struct entry *entry)
{
    static char shown[PATH_BYTES];
    const char *name;
    strcpy(shown, entry->path);
    if (leads_out(entry->path))
        return failure(shown, "leads out of the directory");
    if (entry->type && !strchr("01257", entry->type))
        return failure(shown, "is neither file, directory nor link");
    int parent = open_parent(root, entry->path, &name);
    if (parent < 0)
        return failure(shown, strerror(errno));
    int code = 0;
    if (strcmp(name, ".") != 0 && *name) {
        const struct timespec times[2] = {{.tv_sec = entry->status.st_mtime}, {.tv_sec = entry->status.st_mtime}};
        const struct stat *status = &entry->status;
        if (!make(root, parent, name, entry))
            code = failure(shown, strerror(errno));
        else if (entry->type != '1' &&
                 (fchownat(parent, name, status->st_uid, status->st_gid, AT_SYMLINK_NOFOLLOW) < 0 ||
                  (entry->type != '2' && fchmodat(parent, name, status->st_mode, 0) < 0)))
            code = failure(shown, strerror(errno));
        else
            utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW);
    }
    close(parent);
    return code;
}

int archive_unpack(const char *path)
{
    static struct entry entry;
    static struct overrides over;
    struct header header;
    unsigned long long count = 0;
    int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return failure(path, strerror(errno));
    umask(0);
    memset(&over, 0, sizeof over);
    for (;;) {
        if (!take(&header, sizeof header))
            return failure(path, "the archive ends early");
        if (!header.name[0] && !header.type && !octal(header.checksum, sizeof header.checksum))
            break;
        if (!is_sound(&header))
            return failure(path, "the archive is broken");
        fill(&entry, &header, &over);
        if (header.type == 'x' || header.type == 'g') {
            static struct overrides global; /* comments, mostly: read and left alone */
            if (!read_pax(header.type == 'x' ? &over : &global, octal(header.size, sizeof header.size)))
                return failure(path, "the archive is broken");
            continue;
        }
        memset(&over, 0, sizeof over);
        if (unpack_entry(root, &entry))
            return 1;
        count++;
    }
    while (read(0, buffer, sizeof buffer) > 0)
        ; /* the padding behind the end, so that the writer is not cut off */
    return printf("%llu\n", count) < 0 || fflush(stdout) != 0;
}
