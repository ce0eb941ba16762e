#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"
#include "archive.h"
#include "machine.h"
#include "user.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* What Docker leaves to root in a container, without MKNOD: a disk's device node would be a way around mounts. */
static const uint64_t KEPT_CAPABILITIES =
    1ull << CAP_CHOWN | 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_FSETID | 1ull << CAP_FOWNER |
    1ull << CAP_NET_RAW | 1ull << CAP_SETGID | 1ull << CAP_SETUID | 1ull << CAP_SETFCAP | 1ull << CAP_SETPCAP |
    1ull << CAP_NET_BIND_SERVICE | 1ull << CAP_SYS_CHROOT | 1ull << CAP_KILL | 1ull << CAP_AUDIT_WRITE;

static void append(char ***list, unsigned *count, char *text)
{
    if ((*count & (*count + 1)) == 0) { /* full at 0, 1, 3, 7 …: one more for the NULL behind the last */
        char **bigger = allocate((2 * (size_t)*count + 2) * sizeof *bigger);
        if (*count)
            memcpy(bigger, *list, *count * sizeof *bigger);
        free(*list);
        *list = bigger;
    }
    (*list)[(*count)++] = text;
}

static void parse_rlimit(struct launch *launch, const struct field *field)
{
    uint64_t values[3];
    if (field->length != sizeof values || launch->rlimit_count == RLIMITS_MAX)
        return;
    memcpy(values, field->value, sizeof values);
    launch->rlimits[launch->rlimit_count].resource = (int)values[0];
    launch->rlimits[launch->rlimit_count].limit = (struct rlimit){values[1], values[2]};
    launch->rlimit_count++;
}

bool launch_parse(struct launch *launch, const uint8_t *data, uint32_t size)
{
    *launch = (struct launch){.user = "", .workdir = "/", .umask = 022, .stdin_fd = -1, .stdout_fd = -1,
                              .stderr_fd = -1};
    struct field field;
    while (field_next(&data, &size, &field)) {
        switch (field.tag) {
        case FIELD_ARG: append(&launch->argv, &launch->arg_count, field_text(&field)); break;
        case FIELD_ENV: append(&launch->env, &launch->env_count, field_text(&field)); break;
        case FIELD_USER: launch->user = field_text(&field); break;
        case FIELD_WORKDIR: launch->workdir = field_text(&field); break;
        case FIELD_TTY: launch->terminal = field_number(&field); break;
        case FIELD_MAIN: launch->is_main = field_number(&field); break;
        case FIELD_STDIO_STREAM: launch->stdio_stream = (uint32_t)field_number(&field); break;
        case FIELD_STDERR_STREAM: launch->stderr_stream = (uint32_t)field_number(&field); break;
        case FIELD_ROWS: launch->rows = (unsigned short)field_number(&field); break;
        case FIELD_COLUMNS: launch->columns = (unsigned short)field_number(&field); break;
        case FIELD_UMASK: launch->umask = (mode_t)field_number(&field); break;
        case FIELD_BUILTIN: launch->builtin = (enum builtin)field_number(&field); break;
        case FIELD_OOM_SCORE: launch->oom_score = (int)(int64_t)field_number(&field); break;
        case FIELD_RLIMIT: parse_rlimit(launch, &field); break;
        case FIELD_GROUP:
            if (launch->group_count < EXTRA_GROUPS_MAX)
                launch->groups[launch->group_count++] = field_text(&field);
            break;
        }
    }
    return size == 0 && launch->arg_count > 0;
}

void launch_free(struct launch *launch)
{
    for (unsigned i = 0; i < launch->arg_count; i++)
        free(launch->argv[i]);
    for (unsigned i = 0; i < launch->env_count; i++)
        free(launch->env[i]);
    for (unsigned i = 0; i < launch->group_count; i++)
        free((char *)launch->groups[i]);
    free(launch->argv);
    free(launch->env);
    if (*launch->user)
        free((char *)launch->user);
    if (strcmp(launch->workdir, "/") != 0)
        free((char *)launch->workdir);
}

static _Noreturn void fail(const struct launch *launch, const char *stage, int error)
{
    struct launch_report report = {.error = error};
    snprintf(report.stage, sizeof report.stage, "%s", stage);
    (void)!write(launch->report_fd, &report, sizeof report);
    _exit(127);
}

static void take_stdio(struct launch *launch)
{
    setsid();
    if (launch->terminal) {
        char path[32];
        snprintf(path, sizeof path, "/dev/pts/%u", launch->terminal_number);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0 || ioctl(fd, TIOCSCTTY, 0) < 0)
            fail(launch, "terminal", errno);
        launch->stdin_fd = launch->stdout_fd = launch->stderr_fd = fd;
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int wanted[3] = {launch->stdin_fd, launch->stdout_fd, launch->stderr_fd};
    for (int i = 0; i < 3; i++) {
        int fd = wanted[i] < 0 ? null : wanted[i];
        if (fd < 0 || dup2(fd, i) < 0)
            fail(launch, "standard streams", errno);
    }
}

static void make_workdir(const char *path)
{
    char partial[PATH_MAX];
    if (snprintf(partial, sizeof partial, "%s", path) >= (int)sizeof partial)
        return;
    for (char *slash = partial; (slash = strchr(slash + 1, '/')) != NULL; *slash = '/') {
        *slash = '\0';
        mkdir(partial, 0755);
    }
    mkdir(partial, 0755);
}

static void become(struct launch *launch, const struct identity *identity)
{
    for (int capability = 0; capability <= 63; capability++)
        if (!(KEPT_CAPABILITIES >> capability & 1) && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 &&
            errno != EINVAL)
            fail(launch, "capabilities", errno);
    if (launch->terminal && fchown(0, identity->uid, (gid_t)-1) < 0)
        fail(launch, "terminal", errno);
    /* Entered with all rights, and again with the user's own where those see more (a FUSE mount). */
    int entered = chdir(launch->workdir);
    if (setgroups(identity->group_count, identity->groups) < 0 || setgid(identity->gid) < 0 ||
        setuid(identity->uid) < 0)
        fail(launch, "user", errno);
    if (entered < 0 && chdir(launch->workdir) < 0)
        fail(launch, "working directory", errno);
}

static void add_default_env(struct launch *launch, const char *name, const char *value)
{
    size_t length = strlen(name);
    for (unsigned i = 0; i < launch->env_count; i++)
        if (strncmp(launch->env[i], name, length) == 0 && launch->env[i][length] == '=')
            return;
    char *entry = allocate(length + strlen(value) + 2);
    sprintf(entry, "%s=%s", name, value);
    append(&launch->env, &launch->env_count, entry);
}

static const char *env_value(const struct launch *launch, const char *name)
{
    size_t length = strlen(name);
    for (unsigned i = 0; i < launch->env_count; i++)
        if (strncmp(launch->env[i], name, length) == 0 && launch->env[i][length] == '=')
            return launch->env[i] + length + 1;
    return "";
}

/* Looks for the program as a shell would; the error is the most telling one. */
static int execute(struct launch *launch)
{
    const char *program = launch->argv[0];
    if (strchr(program, '/')) {
        execve(program, launch->argv, launch->env);
        return errno;
    }
    int error = ENOENT;
    const char *path = env_value(launch, "PATH");
    while (*path && *program) {
        size_t length = strcspn(path, ":");
        char candidate[PATH_MAX];
        int size = snprintf(candidate, sizeof candidate, "%.*s/%s", (int)length, length ? path : ".", program);
        if (size < (int)sizeof candidate) {
            execve(candidate, launch->argv, launch->env);
            if (errno != ENOENT && errno != ENOTDIR)
                error = errno;
        }
        path += length + (path[length] == ':');
    }
    return error;
}

/* In place of a program, with the rights and the root that it would have. */
static _Noreturn void run_builtin(const struct launch *launch)
{
    syscall(SYS_close_range, 3u, ~0u, 0u); /* the report among them: the process runs */
    signal(SIGPIPE, SIG_IGN);
    switch (launch->builtin) {
    case BUILTIN_PACK: _exit(archive_pack(launch->argv[0]));
    case BUILTIN_UNPACK: _exit(archive_unpack(launch->argv[0]));
    case BUILTIN_STAT: _exit(stat_path(launch->argv[0]));
    default: _exit(126);
    }
}

static _Noreturn void become_process(struct launch *launch)
{
    struct identity identity;
    char hostname[65] = "";
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    take_stdio(launch);
    char score[16];
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    snprintf(score, sizeof score, "%d", launch->oom_score);
    if (fd >= 0)
        (void)!write(fd, score, strlen(score));
    for (unsigned i = 0; i < launch->rlimit_count; i++)
        if (setrlimit(launch->rlimits[i].resource, &launch->rlimits[i].limit) < 0 && in_machine)
            fail(launch, "resource limits", errno);
    const char *unknown = identity_find(launch->user, &identity);
    for (unsigned i = 0; !unknown && i < launch->group_count; i++)
        unknown = identity_add_group(launch->groups[i], &identity) ? "group" : NULL;
    if (unknown)
        fail(launch, unknown, ENOENT);
    gethostname(hostname, sizeof hostname - 1);
    add_default_env(launch, "PATH", DEFAULT_PATH);
    add_default_env(launch, "HOME", identity.home);
    add_default_env(launch, "HOSTNAME", hostname);
    if (launch->terminal)
        add_default_env(launch, "TERM", "xterm");
    umask(022);
    if (launch->is_main)
        make_workdir(launch->workdir);
    if (in_machine)
        become(launch, &identity);
    else if (chdir(launch->workdir) < 0)
        fail(launch, "working directory", errno);
    umask(launch->umask);
    if (launch->builtin && launch->builtin != BUILTIN_NOTHING)
        run_builtin(launch);
    syscall(SYS_close_range, 3u, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */);
    if (launch->builtin == BUILTIN_NOTHING) { /* the agent's own program, for no image has to have one */
        execve("/proc/self/exe", (char *[]){"lns-agent", "--nothing", NULL}, launch->env);
        fail(launch, "exec", errno);
    }
    fail(launch, "exec", execute(launch));
}

_Noreturn void launch_run(struct launch *launch)
{
    if (!machine_enter())
        fail(launch, "namespaces", errno);
    /* The process becomes a child of the agent itself, which so learns how it ends. */
    long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
    if (pid < 0)
        fail(launch, "fork", errno);
    if (pid == 0)
        become_process(launch);
    struct launch_report report = {.pid = (int32_t)pid};
    (void)!write(launch->report_fd, &report, sizeof report);
    _exit(0);
}
