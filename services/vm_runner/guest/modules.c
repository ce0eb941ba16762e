#include "modules.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

/* What ends a signed module, behind the signature: struct module_signature and a line of text, as
 * scripts/sign-file.c of the kernel writes them. */
#define SIGNATURE_MARK "~Module signature appended~\n"
enum { MARK_SIZE = sizeof SIGNATURE_MARK - 1, TRAILER_SIZE = 12 + MARK_SIZE };

static size_t size_without_signature(const uint8_t *data, size_t size)
{
    if (size < TRAILER_SIZE || memcmp(data + size - MARK_SIZE, SIGNATURE_MARK, MARK_SIZE) != 0)
        return size;
    uint32_t signature;
    memcpy(&signature, data + size - MARK_SIZE - sizeof signature, sizeof signature);
    signature = ntohl(signature);
    return signature <= size - TRAILER_SIZE ? size - TRAILER_SIZE - signature : size;
}

/* The modules come from where the kernel itself does, so their signatures say nothing; checking them takes
 * half of the time of loading. A kernel that insists on them gets them. */
static bool load(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return false;
    size_t size = (size_t)status.st_size;
    uint8_t *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    bool loaded = data != MAP_FAILED &&
                  (syscall(SYS_init_module, data, size_without_signature(data, size), "") == 0 || errno == EEXIST);
    if (data != MAP_FAILED)
        munmap(data, size);
    loaded = loaded || syscall(SYS_finit_module, fd, "", 0) == 0 || errno == EEXIST;
    int error = errno;
    close(fd);
    errno = error;
    return loaded;
}

void modules_load(const char *folder)
{
    struct dirent **entries;
    int count = scandir(folder, &entries, NULL, alphasort); /* numbered in the order of their needs */
    for (int i = 0; i < count; i++) {
        char path[300];
        if (entries[i]->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        if (!load(path))
            note("module %s: %s", path, strerror(errno));
    }
}
