#include "seed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "archive.h"

static pid_t start_packing(const char *target, const int ends[2])
{
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        _exit(archive_pack(target));
    }
    return pid;
}

static pid_t start_unpacking(int place, const int ends[2])
{
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(ends[0], STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        _exit(fchdir(place) < 0 ? 1 : archive_unpack("."));
    }
    return pid;
}

static bool succeeded(pid_t pid)
{
    int status;
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/* The archive has the target's last name; the copy gets its own when it is whole, so that a crash begins anew. */
static bool copy(int place, const char *target)
{
    const char *slash = strrchr(target, '/');
    const char *name = slash && slash[1] ? slash + 1 : "root";
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return false;
    pid_t packing = start_packing(target, ends);
    pid_t unpacking = start_unpacking(place, ends);
    close(ends[0]);
    close(ends[1]);
    bool packed = succeeded(packing), unpacked = succeeded(unpacking);
    errno = EIO;
    return packed && unpacked && (strcmp(name, "data") == 0 || renameat(place, name, place, "data") == 0);
}

bool seed_volume(int base, const char *place, const char *target, struct failure *failure)
{
    struct stat status;
    int fd = openat(base, place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return failed_at(failure, "volume on %.60s", target);
    bool done = fstatat(fd, "data", &status, AT_SYMLINK_NOFOLLOW) == 0;
    if (!done && stat(target, &status) == 0 && S_ISDIR(status.st_mode))
        done = copy(fd, target);
    else if (!done)
        done = mkdirat(fd, "data", 0755) == 0;
    if (!done)
        failed_at(failure, "first content of the volume on %.50s", target);
    close(fd);
    return done;
}
