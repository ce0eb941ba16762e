#include "confine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int resource;
} LIMITS[] = {
    {"core", RLIMIT_CORE},   {"data", RLIMIT_DATA},       {"fsize", RLIMIT_FSIZE},
    {"nproc", RLIMIT_NPROC}, {"memlock", RLIMIT_MEMLOCK}, {"nofile", RLIMIT_NOFILE},
};

static _Noreturn void refuse(const char *what, const char *value)
{
    errno = EINVAL;
    fail("%s %s", what, value);
}

static unsigned long long number(const char *text)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || end == text || *end || *text == '-')
        refuse("number", text);
    return value;
}

static void room(unsigned count, unsigned most, const char *name)
{
    if (count == most)
        refuse("too many of", name);
}

static void add_bind(struct options *options, int kind, const char *source, const char *target)
{
    if (*source != '/' || *target != '/')
        refuse("not an absolute path:", *source == '/' ? target : source);
    room(options->bind_count, BINDS_MAX, "binds");
    options->binds[options->bind_count++] = (struct bind){kind, source, target};
}

static void add_descriptor(struct options *options, int kind, const char *path)
{
    room(options->descriptor_count, DESCRIPTORS_MAX, "descriptors");
    options->descriptors[options->descriptor_count++] = (struct descriptor){kind, path};
}

static void add_limit(struct options *options, const char *name, const char *value)
{
    room(options->limit_count, LIMITS_MAX, "limits");
    for (unsigned i = 0; i < sizeof LIMITS / sizeof *LIMITS; i++)
        if (strcmp(LIMITS[i].name, name) == 0) {
            options->limits[options->limit_count++] = (struct limit){LIMITS[i].resource, number(value)};
            return;
        }
    refuse("unknown limit", name);
}

/* Takes one switch with its values; returns how many values it has. */
static int take(struct options *options, const char *name, char **values, int left)
{
#define SWITCH(text, values_wanted) (strcmp(name, text) == 0 && (left >= (values_wanted) || (refuse("no value for", name), 0)))
    if (SWITCH("--isolate", 0))
        return options->isolate = true, 0;
    if (SWITCH("--user-namespace", 0))
        return options->user_namespace = true, 0;
    if (SWITCH("--wait", 0))
        return options->wait = true, 0;
    if (SWITCH("--pid-file", 1))
        return options->pid_file = values[0], 1;
    if (SWITCH("--user", 2)) {
        options->first_uid = (uid_t)number(values[0]);
        options->uid_count = (uid_t)number(values[1]);
        return 2;
    }
    if (SWITCH("--group", 1))
        return options->group = (gid_t)number(values[0]), 1;
    if (SWITCH("--oom-score", 1))
        return options->oom_score = (int)number(values[0]), 1;
    if (SWITCH("--cgroup", 1)) {
        room(options->cgroup_count, CGROUPS_MAX, "cgroups");
        return options->cgroups[options->cgroup_count++] = values[0], 1;
    }
    if (SWITCH("--limit", 2))
        return add_limit(options, values[0], values[1]), 2;
    if (SWITCH("--data", 2))
        return add_bind(options, BIND_DATA, values[0], values[1]), 2;
    if (SWITCH("--code", 2))
        return add_bind(options, BIND_CODE, values[0], values[1]), 2;
    if (SWITCH("--device", 1))
        return add_bind(options, BIND_DEVICE, values[0], values[0]), 1;
    if (SWITCH("--read", 1))
        return add_descriptor(options, OPEN_READ, values[0]), 1;
    if (SWITCH("--write", 1))
        return add_descriptor(options, OPEN_WRITE, values[0]), 1;
    if (SWITCH("--ram", 1) || SWITCH("--shared-ram", 1))
        return options->ram_is_shared = name[2] == 's', options->ram = values[0], 1;
    if (SWITCH("--listen", 1))
        return add_descriptor(options, OPEN_LISTEN, values[0]), 1;
#undef SWITCH
    refuse("unknown switch", name);
}

void options_parse(struct options *options, char **arguments)
{
    int left = 0;
    while (arguments[left])
        left++;
    for (; left && strcmp(*arguments, "--") != 0;) {
        int taken = 1 + take(options, arguments[0], arguments + 1, left - 1);
        arguments += taken;
        left -= taken;
    }
    if (left < 2)
        refuse("no program", "");
    if (options->first_uid && !options->uid_count)
        refuse("an empty range of", "users");
    options->command = arguments + 1;
}
