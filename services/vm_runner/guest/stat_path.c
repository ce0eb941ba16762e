#include "archive.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINKS_MAX = 40 }; /* as many as the kernel follows */

static char kind(int status, const struct stat *found)
{
    if (status < 0)
        return '-';
    return S_ISREG(found->st_mode) ? 'f' : S_ISDIR(found->st_mode) ? 'd' : S_ISLNK(found->st_mode) ? 'l' : 'o';
}

/* Follows the links at the end of `path`, also the last one that leads to nothing, and resolves the rest. */
static bool resolve(const char *path, char resolved[PATH_MAX])
{
    char at[PATH_MAX], target[PATH_MAX], joined[2 * PATH_MAX], parent[PATH_MAX];
    if (snprintf(at, sizeof at, "%s", path) >= (int)sizeof at)
        return false;
    for (int links = 0; links < LINKS_MAX; links++) {
        size_t length = strlen(at);
        while (length > 1 && at[length - 1] == '/')
            at[--length] = '\0';
        if (realpath(at, resolved))
            return true;
        char *slash = strrchr(at, '/');
        if (errno != ENOENT || !slash)
            return false;
        ssize_t size = readlink(at, target, sizeof target - 1);
        if (size < 0) { /* it is not there: its directory has to be */
            *slash = '\0';
            if (!realpath(*at ? at : "/", parent))
                return false;
            return snprintf(resolved, PATH_MAX, "%s/%s", strcmp(parent, "/") ? parent : "", slash + 1) < PATH_MAX;
        }
        target[size] = '\0';
        slash[1] = '\0';
        if (snprintf(joined, sizeof joined, "%s%s", *target == '/' ? "" : at, target) >= PATH_MAX)
            return false;
        strcpy(at, joined);
    }
    return false;
}

int stat_path(const char *path)
{
    struct stat link, followed;
    char resolved[PATH_MAX] = "";
    char first = kind(lstat(path, &link), &link);
    char second = kind(stat(path, &followed), &followed);
    if (!resolve(path, resolved))
        resolved[0] = '\0';
    return printf("%c%c%s", first, second, resolved) < 0 || fflush(stdout) != 0;
}
