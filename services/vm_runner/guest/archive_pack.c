#include "archive.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tar.h"

enum { DEPTH_MAX = 256, SHARED_MAX = 4096 };

/* Files with several names that were packed, by their first name; what does not fit is packed once for each name. */
static struct shared {
    dev_t device;
    ino_t inode;
    char *path;
} shared[SHARED_MAX];
static unsigned shared_count;


static unsigned char buffer[COPY_BYTES];

static bool put(const void *data, size_t size)
{
    const char *at = data;
    while (size) {
        ssize_t n = write(1, at, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

static bool put_padding(uint64_t size)
{
    static const char zeros[BLOCK];
    return put(zeros, (size_t)(-size & (BLOCK - 1)));
}

static bool put_header(const char *name, const char *link, char type, const struct stat *status, uint64_t size)
{
    struct header header = {.type = type, .magic = "ustar", .version = {'0', '0'}};
    memcpy(header.name, name, strnlen(name, sizeof header.name));
    memcpy(header.link, link, strnlen(link, sizeof header.link));
    uint64_t seconds = status->st_mtime > 0 ? (uint64_t)status->st_mtime : 0;
    snprintf(header.mode, sizeof header.mode, "%07o", (unsigned)(status->st_mode & 07777));
    snprintf(header.uid, sizeof header.uid, "%07o", (unsigned)status->st_uid & 07777777);
    snprintf(header.gid, sizeof header.gid, "%07o", (unsigned)status->st_gid & 07777777);
    snprintf(header.size, sizeof header.size, "%011llo", (unsigned long long)(size & 077777777777));
    snprintf(header.mtime, sizeof header.mtime, "%011llo", (unsigned long long)(seconds & 077777777777));
    memset(header.checksum, ' ', sizeof header.checksum);
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof header; i++)
        sum += ((unsigned char *)&header)[i];
    snprintf(header.checksum, sizeof header.checksum, "%06o", sum);
    header.checksum[7] = ' ';
    return put(&header, sizeof header);
}

/* A record is `length key=value\n`, where the length counts its own digits. */
static size_t put_record(char *out, const char *key, const char *value)
{
    size_t rest = strlen(key) + strlen(value) + 3, length = rest + 1;
    for (size_t digits = 1, limit = 10; length >= limit; limit *= 10)
        length = rest + ++digits;
    return (size_t)sprintf(out, "%zu %s=%s\n", length, key, value);
}

static bool put_entry(const char *path, const char *link, char type, const struct stat *status, uint64_t size)
{
    static char records[2 * PATH_BYTES + 256];
    char number[24];
    size_t used = 0;
    if (strlen(path) > sizeof((struct header *)0)->name)
        used += put_record(records + used, "path", path);
    if (strlen(link) > sizeof((struct header *)0)->link)
        used += put_record(records + used, "linkpath", link);
    const struct { const char *key; uint64_t value, largest; } numbers[] = {
        {"size", size, 077777777777}, {"uid", status->st_uid, 07777777}, {"gid", status->st_gid, 07777777},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(number, sizeof number, "%llu", (unsigned long long)numbers[i].value);
        if (numbers[i].value > numbers[i].largest)
            used += put_record(records + used, numbers[i].key, number);
    }
    if (used && (!put_header("pax", "", 'x', status, used) || !put(records, used) || !put_padding(used)))
        return false;
    return put_header(path, link, type, status, size);
}

/* As many bytes as the header said, whatever happens to the file meanwhile. */
static bool put_content(int fd, uint64_t size)
{
    uint64_t left = size;
    while (left) {
        size_t want = left < sizeof buffer ? (size_t)left : sizeof buffer;
        ssize_t n = read(fd, buffer, want);
        if (n <= 0) {
            memset(buffer, 0, want);
            n = (ssize_t)want;
        }
        if (!put(buffer, (size_t)n))
            return false;
        left -= (uint64_t)n;
    }
    return put_padding(size);
}

/* Returns the name by which a file was packed already, or NULL and remembers this one. */
static const char *earlier_name(const struct stat *status, const char *path)
{
    if (status->st_nlink < 2)
        return NULL;
    for (unsigned i = 0; i < shared_count; i++)
        if (shared[i].device == status->st_dev && shared[i].inode == status->st_ino)
            return shared[i].path;
    char *copy = shared_count < SHARED_MAX ? strdup(path) : NULL;
    if (copy)
        shared[shared_count++] = (struct shared){status->st_dev, status->st_ino, copy};
    return NULL;
}

static int pack_entry(int directory, const char *name, const char *path, unsigned depth);

static int pack_directory(int fd, const char *path, unsigned depth)
{
    DIR *stream = fdopendir(fd);
    struct dirent *found;
    char inner[PATH_BYTES];
    int code = stream ? 0 : failure(path, strerror(errno));
    while (!code && (found = readdir(stream))) {
        if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0)
            continue;
        if (snprintf(inner, sizeof inner, "%s/%s", path, found->d_name) >= (int)sizeof inner)
            code = failure(path, "a path below it is too long");
        else
            code = pack_entry(dirfd(stream), found->d_name, inner, depth + 1);
    }
    if (stream)
        closedir(stream);
    return code;
}

static int pack_entry(int directory, const char *name, const char *path, unsigned depth)
{
    struct stat status;
    char link[PATH_BYTES] = "";
    if (depth > DEPTH_MAX)
        return failure(path, "is nested too deeply");
    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT && depth ? 0 : failure(path, strerror(errno));
    if (S_ISLNK(status.st_mode)) {
        if (readlinkat(directory, name, link, sizeof link - 1) < 0)
            return failure(path, strerror(errno));
        return put_entry(path, link, '2', &status, 0) ? 0 : failure(path, "the reader is gone");
    }
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode))
        return 0;
    int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return failure(path, strerror(errno));
    if (S_ISDIR(status.st_mode)) {
        if (!put_entry(path, "", '5', &status, 0))
            return failure(path, "the reader is gone");
        return pack_directory(fd, path, depth);
    }
    const char *first = earlier_name(&status, path);
    bool done = first ? put_entry(path, first, '1', &status, 0)
                      : put_entry(path, "", '0', &status, (uint64_t)status.st_size) &&
                            put_content(fd, (uint64_t)status.st_size);
    close(fd);
    return done ? 0 : failure(path, "the reader is gone");
}

int archive_pack(const char *path)
{
    static const char end[2 * BLOCK];
    char trimmed[PATH_BYTES];
    if (snprintf(trimmed, sizeof trimmed, "%s", path) >= (int)sizeof trimmed)
        return failure(path, "is too long");
    for (size_t length = strlen(trimmed); length > 1 && trimmed[length - 1] == '/'; length--)
        trimmed[length - 1] = '\0';
    const char *name = strrchr(trimmed, '/');
    name = name && name[1] ? name + 1 : "root";
    int code = pack_entry(AT_FDCWD, trimmed, name, 0);
    return code || put(end, sizeof end) ? code : failure(path, "the reader is gone");
}
