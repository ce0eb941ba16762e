#include "trust.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "jks.h"

enum { BUNDLE_MAX = 8 << 20 };

/* Where systems keep the bundle that OpenSSL, GnuTLS and their users read; the first is made where all are missing. */
static const char *const BUNDLES[] = {
    "/etc/ssl/certs/ca-certificates.crt",                /* Debian, Alpine, Arch */
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", /* Fedora and its like */
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/ca-bundle.pem", /* SUSE */
    "/etc/ssl/cert.pem",
};

static const char *const JAVA_STORES[] = {
    "/etc/ssl/certs/java/cacerts",
    "/etc/pki/java/cacerts",
    "/etc/pki/ca-trust/extracted/java/cacerts",
    "/usr/lib/jvm/*/lib/security/cacerts",
    "/usr/lib/jvm/*/jre/lib/security/cacerts",
    "/usr/local/openjdk-*/lib/security/cacerts",
    "/opt/*/lib/security/cacerts",
    "/opt/java/*/lib/security/cacerts",
    "/usr/java/*/lib/security/cacerts",
    "/root/.sdkman/candidates/java/*/lib/security/cacerts",
};

/* From here the tools that make a bundle anew take what is to be in it. */
static const char *const ANCHORS[] = {
    "/usr/local/share/ca-certificates",
    "/etc/pki/ca-trust/source/anchors",
};

static const char BEGIN[] = "# authority of the lns run, begin\n";
static const char END[] = "# authority of the lns run, end\n";

struct text {
    char *data;
    size_t size;
};

static bool read_file(int directory, const char *path, struct text *text)
{
    struct stat status;
    int fd = openat(directory, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool fits = fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size <= BUNDLE_MAX;
    text->size = 0;
    text->data = fits ? malloc((size_t)status.st_size + 1) : NULL;
    ssize_t got = 0;
    while (text->data && text->size < (size_t)status.st_size &&
           (got = read(fd, text->data + text->size, (size_t)status.st_size - text->size)) > 0)
        text->size += (size_t)got;
    if (fd >= 0)
        close(fd);
    return text->data != NULL;
}

static void make_directories(const char *path)
{
    char partial[256];
    if (strlen(path) >= sizeof partial)
        return;
    strcpy(partial, path);
    for (char *slash = partial; (slash = strchr(slash + 1, '/')) != NULL; *slash = '/') {
        *slash = '\0';
        mkdir(partial, 0755);
    }
}

static void write_file(const char *path, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0644);
    const char *at = data;
    ssize_t put = 0;
    while (fd >= 0 && size && (put = write(fd, at, size)) > 0) {
        at += put;
        size -= (size_t)put;
    }
    if (fd < 0 || size)
        note("trust: %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* Takes away what an earlier start of the run has put there. */
static void strip(struct text *text)
{
    char *begin = memmem(text->data, text->size, BEGIN, sizeof BEGIN - 1);
    char *end = begin ? memmem(begin, (size_t)(text->data + text->size - begin), END, sizeof END - 1) : NULL;
    if (!end)
        return;
    end += sizeof END - 1;
    memmove(begin, end, (size_t)(text->data + text->size - end));
    text->size -= (size_t)(end - begin);
}

/* Puts the authority behind what the file has. */
static bool merge(struct text *text, const char *authority, size_t size)
{
    strip(text);
    char *merged = realloc(text->data, text->size + size + sizeof BEGIN + sizeof END + 2);
    if (!merged)
        return false;
    char *at = merged + text->size;
    if (text->size && at[-1] != '\n')
        *at++ = '\n';
    at = mempcpy(at, BEGIN, sizeof BEGIN - 1);
    at = mempcpy(at, authority, size);
    if (size && at[-1] != '\n')
        *at++ = '\n';
    at = mempcpy(at, END, sizeof END - 1);
    *text = (struct text){merged, (size_t)(at - merged)};
    return true;
}

/* Merges each bundle of the image; `kept` gets the first. */
static void merge_bundles(const char *authority, size_t size, struct text *kept)
{
    for (size_t i = 0; i < sizeof BUNDLES / sizeof *BUNDLES; i++) {
        struct text text;
        if (!read_file(AT_FDCWD, BUNDLES[i], &text))
            continue;
        if (merge(&text, authority, size))
            write_file(BUNDLES[i], text.data, text.size);
        if (!kept->data)
            *kept = text;
        else
            free(text.data);
    }
}

static void replace_java_stores(const struct text *bundle)
{
    size_t size = 0;
    uint8_t *store = NULL;
    for (size_t i = 0; i < sizeof JAVA_STORES / sizeof *JAVA_STORES; i++) {
        glob_t found;
        if (glob(JAVA_STORES[i], GLOB_NOSORT, NULL, &found) == 0) {
            if (!store)
                store = jks_of_pem(bundle->data, bundle->size, &size);
            for (size_t k = 0; store && k < found.gl_pathc; k++)
                write_file(found.gl_pathv[k], store, size);
        }
        globfree(&found);
    }
    free(store);
}

static void write_anchors(const char *authority, size_t size)
{
    for (size_t i = 0; i < sizeof ANCHORS / sizeof *ANCHORS; i++) {
        int directory = open(ANCHORS[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (directory < 0)
            continue;
        int fd = openat(directory, "lns-run.crt", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
        if (fd >= 0) {
            (void)!write(fd, authority, size);
            close(fd);
        }
        close(directory);
    }
}

void trust_install(const char *authority, size_t size, int machine_root)
{
    struct text bundle = {0};
    merge_bundles(authority, size, &bundle);
    if (!bundle.data) {
        if (!read_file(machine_root, TRUST_HOST_ROOTS, &bundle))
            bundle = (struct text){malloc(1), 0};
        if (!bundle.data || !merge(&bundle, authority, size))
            return;
        make_directories(BUNDLES[0]);
        write_file(BUNDLES[0], bundle.data, bundle.size);
    }
    make_directories(TRUST_BUNDLE);
    write_file(TRUST_BUNDLE, bundle.data, bundle.size);
    write_file(TRUST_AUTHORITY, authority, size);
    replace_java_stores(&bundle);
    write_anchors(authority, size);
    free(bundle.data);
}
