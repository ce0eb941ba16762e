#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"
#include "channel.h"
#include "launch.h"
#include "machine.h"
#include "stream.h"

enum { PROCESSES_MAX = 4096, STDIO_WINDOW = 262144 };

enum state { STARTING, RUNNING, EXITED, FAILED };

struct process {
    uint32_t id;
    enum state state;
    bool is_main, due;
    pid_t helper, pid;
    struct watch report; /* until the program runs or has failed to */
    int terminal;
    uint32_t stdio_stream;
    uint64_t pending_signals;
    uint64_t oom_kills_before;
    int status;
    bool oom_killed;
    int error;
    char stage[24];
    struct process *next;
};

static struct process *processes;
static unsigned process_count;
static uint32_t highest_id;

static struct process *find(uint32_t id)
{
    for (struct process *p = processes; p; p = p->next)
        if (p->id == id)
            return p;
    return NULL;
}

static void changed(struct process *p)
{
    p->due = true;
    channel_wake();
}

static void failed(struct process *p, const char *stage, int error)
{
    p->state = FAILED;
    p->error = error;
    snprintf(p->stage, sizeof p->stage, "%s", stage);
    changed(p);
}

/* The helper names the child; then the child reports a failure, or its exec closes the pipe. */
static void report_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    struct process *p = watch->owner;
    struct launch_report report;
    ssize_t n;
    while ((n = read(watch->fd, &report, sizeof report)) == sizeof report) {
        report.stage[sizeof report.stage - 1] = '\0';
        if (report.pid)
            p->pid = report.pid;
        else
            failed(p, report.stage, report.error);
    }
    if (n < 0 && errno == EAGAIN)
        return;
    watch_close(watch);
    if (p->state != STARTING)
        return;
    if (!p->pid) {
        failed(p, "fork", EAGAIN);
        return;
    }
    p->state = RUNNING;
    for (int number = 1; number <= 64; number++)
        if (p->pending_signals >> (number - 1) & 1)
            kill(p->pid, number);
    changed(p);
}


/* Makes a pipe; the agent's end does not block. */
static bool make_pipe(int fds[2], int agent_end)
{
    if (pipe2(fds, O_CLOEXEC) < 0)
        return false;
    fcntl(fds[agent_end], F_SETFL, O_NONBLOCK);
    fcntl(fds[agent_end], F_SETPIPE_SZ, STDIO_WINDOW);
    return true;
}

static bool open_pipes(struct launch *launch, struct process *p)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
    if (launch->stdio_stream && (!make_pipe(in, 1) || !make_pipe(out, 0)))
        return false;
    if (launch->stderr_stream && !make_pipe(err, 0))
        return false;
    launch->stdin_fd = in[0];
    launch->stdout_fd = out[1];
    launch->stderr_fd = err[1];
    struct stream *stream;
    if (launch->stdio_stream) {
        if (!(stream = stream_open(launch->stdio_stream, out[0], in[1], STDIO_WINDOW)))
            return false;
        stream->outlives_host = true;
        p->stdio_stream = launch->stdio_stream;
    }
    if (launch->stderr_stream) {
        if (!(stream = stream_open(launch->stderr_stream, err[0], -1, STDIO_WINDOW)))
            return false;
        stream->outlives_host = true;
    }
    return true;
}

static bool open_terminal(struct launch *launch, struct process *p)
{
    int master = machine_open_terminal(&launch->terminal_number);
    int sink = master < 0 ? -1 : fcntl(master, F_DUPFD_CLOEXEC, 3);
    p->terminal = master < 0 ? -1 : fcntl(master, F_DUPFD_CLOEXEC, 3);
    if (sink < 0 || p->terminal < 0)
        return false;
    struct winsize size = {.ws_row = launch->rows, .ws_col = launch->columns};
    ioctl(master, TIOCSWINSZ, &size);
    struct stream *stream = stream_open(launch->stdio_stream, master, sink, STDIO_WINDOW);
    if (!stream)
        return false;
    stream->outlives_host = stream->is_terminal = true;
    p->stdio_stream = launch->stdio_stream;
    return true;
}

static void close_child_ends(struct launch *launch)
{
    int ends[] = {launch->stdin_fd, launch->stdout_fd, launch->stderr_fd};
    for (int i = 0; i < 3; i++)
        if (ends[i] >= 0)
            close(ends[i]);
}

static void spawn(struct process *p, struct launch *launch)
{
    int report[2];
    if (!(launch->terminal ? open_terminal(launch, p) : open_pipes(launch, p)) || !make_pipe(report, 0)) {
        failed(p, "descriptors", errno);
        return;
    }
    launch->report_fd = report[1];
    p->oom_kills_before = machine_oom_kills();
    p->helper = fork();
    if (p->helper == 0)
        launch_run(launch);
    close(report[1]);
    p->report = (struct watch){.fd = report[0], .ready = report_ready, .owner = p};
    if (p->helper < 0)
        failed(p, "fork", errno);
    watch_interest(&p->report, EPOLLIN);
}

void process_start(uint32_t id, const uint8_t *data, uint32_t size)
{
    struct process *p = find(id);
    if (p) {
        changed(p);
        return;
    }
    p = allocate(sizeof *p);
    p->id = id;
    p->report.fd = p->terminal = -1;
    p->next = processes;
    processes = p;
    process_count++;
    if (id > highest_id)
        highest_id = id;
    struct launch launch;
    if (!launch_parse(&launch, data, size)) {
        failed(p, "request", EINVAL);
    } else if (process_count > PROCESSES_MAX) {
        failed(p, "too many processes", EAGAIN);
    } else {
        p->is_main = launch.is_main;
        spawn(p, &launch);
        close_child_ends(&launch);
    }
    launch_free(&launch);
}

static void drop(struct process **link)
{
    struct process *p = *link;
    *link = p->next;
    process_count--;
    watch_close(&p->report);
    if (p->terminal >= 0)
        close(p->terminal);
    free(p);
}

void processes_clear(void)
{
    while (processes) {
        if (processes->helper > 0)
            waitpid(processes->helper, NULL, 0);
        if (processes->pid > 0) {
            kill(processes->pid, SIGKILL);
            waitpid(processes->pid, NULL, 0);
        }
        drop(&processes);
    }
    highest_id = 0;
}

void process_forget(uint32_t id)
{
    for (struct process **link = &processes; *link; link = &(*link)->next) {
        struct process *p = *link;
        if (p->id != id || (p->state != EXITED && p->state != FAILED))
            continue;
        drop(link);
        return;
    }
}

void process_signal(uint32_t id, const uint8_t *data, uint32_t size)
{
    struct process *p = find(id);
    struct field field;
    while (p && field_next(&data, &size, &field)) {
        int number = (int)field_number(&field);
        if (field.tag != FIELD_SIGNAL || number < 1 || number > 64)
            continue;
        if (p->state == RUNNING)
            kill(p->pid, number);
        else if (p->state == STARTING)
            p->pending_signals |= 1ull << (number - 1);
    }
}

void process_resize(uint32_t id, const uint8_t *data, uint32_t size)
{
    struct process *p = find(id);
    struct winsize window = {0};
    struct field field;
    while (field_next(&data, &size, &field)) {
        if (field.tag == FIELD_ROWS)
            window.ws_row = (unsigned short)field_number(&field);
        else if (field.tag == FIELD_COLUMNS)
            window.ws_col = (unsigned short)field_number(&field);
    }
    if (p && p->terminal >= 0)
        ioctl(p->terminal, TIOCSWINSZ, &window);
}

static void ended(struct process *p, int status)
{
    p->status = status;
    p->oom_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && machine_oom_kills() > p->oom_kills_before;
    if (p->state != FAILED) {
        p->state = EXITED;
        changed(p);
    }
    struct stream *stream = p->stdio_stream ? stream_find(p->stdio_stream) : NULL;
    if (stream && !stream->is_terminal)
        stream_close_sink(stream);
    if (p->is_main)
        machine_end_workload(); /* what it left behind ends with it, and so does their hold on its output */
}

void processes_reap(void)
{
    for (struct process *p = processes; p; p = p->next) {
        int status;
        if (p->helper > 0 && waitpid(p->helper, NULL, WNOHANG) == p->helper)
            p->helper = 0;
        if (p->report.fd >= 0)
            report_ready(&p->report, EPOLLIN); /* who has ended has said before what it was */
        if (p->pid > 0 && p->report.fd < 0 && waitpid(p->pid, &status, WNOHANG) == p->pid) {
            p->pid = 0;
            ended(p, status);
        }
    }
}

uint32_t process_put_state(struct fields *fields)
{
    for (struct process *p = processes; p; p = p->next) {
        if (!p->due || p->state == STARTING)
            continue;
        p->due = false;
        fields_put_number(fields, FIELD_STATE, p->state);
        if (p->state == RUNNING)
            fields_put_number(fields, FIELD_PID, (uint64_t)p->pid);
        if (p->state == EXITED) {
            if (WIFSIGNALED(p->status))
                fields_put_number(fields, FIELD_SIGNAL, (uint64_t)WTERMSIG(p->status));
            else
                fields_put_number(fields, FIELD_EXIT_CODE, (uint64_t)WEXITSTATUS(p->status));
            fields_put_number(fields, FIELD_OOM_KILLED, p->oom_killed);
            fields_put_number(fields, FIELD_OOM_KILLS, machine_oom_kills());
        }
        if (p->state == FAILED) {
            fields_put_text(fields, FIELD_STAGE, p->stage);
            fields_put_number(fields, FIELD_ERRNO, (uint64_t)p->error);
            fields_put_text(fields, FIELD_TEXT, strerror(p->error));
        }
        return p->id;
    }
    return 0;
}

void processes_restart(void)
{
    for (struct process *p = processes; p; p = p->next)
        p->due = true;
}

uint32_t process_highest_id(void)
{
    return highest_id;
}
