#include "machine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"
#include "bind.h"
#include "cgroup.h"
#include "channel.h"
#include "container.h"
#include "control.h"
#include "egress.h"
#include "files.h"
#include "modules.h"
#include "outgoing.h"
#include "process.h"
#include "rootfs.h"
#include "stream.h"

static bool configured, has_terminals;
static struct failure configure_failure, prepare_failure, freeze_failure, renew_failure;
static struct container container;
static pid_t init_pid;
static int init_pidfd = -1;

/* ---- boot ---- */

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        note("loopback: %s", strerror(errno));
    close(fd);
    write_text("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    write_text("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
}

/* The initramfs cannot be pivoted away from; a file system of its own on top of it can. */
static void leave_initramfs(void)
{
    if (mount("tmpfs", "/new", "tmpfs", 0, "mode=0755,size=16m") < 0 || mkdir("/new/dev", 0755) < 0 ||
        mkdir("/new/proc", 0755) < 0 || mkdir("/new/sys", 0755) < 0 ||
        mount("/dev", "/new/dev", NULL, MS_MOVE, NULL) < 0 ||
        mount("/proc", "/new/proc", NULL, MS_MOVE, NULL) < 0 ||
        mount("/sys", "/new/sys", NULL, MS_MOVE, NULL) < 0 || chdir("/new") < 0 ||
        mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        note("root: %s", strerror(errno));
}

int machine_open_port(const char *wanted)
{
    for (int waited = 0; waited < 10000; waited++) {
        DIR *directory = opendir("/sys/class/virtio-ports");
        struct dirent *entry;
        while (directory && (entry = readdir(directory))) {
            char path[300], name[32] = "";
            snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
            FILE *file = fopen(path, "re");
            if (!file)
                continue;
            (void)!fgets(name, sizeof name, file);
            fclose(file);
            name[strcspn(name, "\n")] = '\0';
            if (strcmp(name, wanted) != 0)
                continue;
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
            if (fd >= 0) {
                closedir(directory);
                return fd;
            }
        }
        if (directory)
            closedir(directory);
        usleep(1000);
    }
    errno = ENODEV;
    return -1;
}

int machine_boot(void)
{
    control_boot_moment(now_ns(CLOCK_BOOTTIME));
    umask(022);
    mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    modules_load("/modules");
    control_boot_moment(now_ns(CLOCK_BOOTTIME));
    leave_initramfs();
    raise_loopback();
    write_text("/proc/self/oom_score_adj", "-1000");
    int port = machine_open_port("lns.channel");
    if (port < 0) {
        note("no channel to the host");
        machine_power_off();
    }
    control_boot_moment(now_ns(CLOCK_BOOTTIME));
    return port;
}

void machine_add_entropy(const uint8_t *data, uint32_t size)
{
    struct {
        struct rand_pool_info info;
        uint8_t data[256];
    } pool;
    if (size > sizeof pool.data)
        size = sizeof pool.data;
    pool.info.entropy_count = (int)size * 8;
    pool.info.buf_size = (int)size;
    memcpy(pool.data, data, size);
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    /* Two machines that were resumed from one snapshot have the same pool: what is added has to count at once. */
    if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) < 0 || (ioctl(fd, RNDRESEEDCRNG) < 0 && errno != ENODATA))
        note("entropy: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* ---- configuration ---- */

static bool mount_host_folder(const struct volume *volume, const char *where, struct failure *failure)
{
    if (volume->is_file)
        close(open(where, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    else
        mkdir(where, 0700);
    return bind_mount(volume->port, where, volume->is_file, volume->read_only, volume->user, failure);
}

static bool mount_volumes(struct failure *failure)
{
    mkdir("/volumes", 0700);
    for (unsigned i = 0; i < container.volume_count; i++) {
        const struct volume *volume = &container.volumes[i];
        char device[32], where[32];
        snprintf(where, sizeof where, "/volumes/%u", i);
        if (volume->port) {
            if (!mount_host_folder(volume, where, failure))
                return false;
            continue;
        }
        if (!disk_find(volume->disk, device, failure))
            return false;
        mkdir(where, 0700);
        if (mount(device, where, "ext4", MS_NOSUID | MS_NODEV | (volume->read_only ? MS_RDONLY : 0),
                  volume->read_only ? "noload" : "discard,noinit_itable") < 0)
            return failed_at(failure, "volume on %.60s", volume->target);
    }
    return true;
}

static bool write_files(struct failure *failure)
{
    mkdir("/files", 0755);
    for (unsigned i = 0; i < container.file_count; i++) {
        char path[32];
        snprintf(path, sizeof path, "/files/%u", i);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        bool written = fd >= 0 && write(fd, container.files[i].content, container.files[i].size) ==
                                      (ssize_t)container.files[i].size;
        if (fd >= 0)
            close(fd);
        if (!written)
            return failed_at(failure, "file %.60s", container.files[i].path);
    }
    return true;
}

/* The agent's own instance: it opens the masters, the workload the slaves. */
static bool mount_terminals(struct failure *failure)
{
    if (has_terminals)
        return true;
    mkdir("/pts", 0755);
    has_terminals = true;
    return mount("devpts", "/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5") == 0 ||
           failed_at(failure, "terminals");
}

/* A bind is `ro` or `rw`, `file` or `folder`, its port, its path, the user to show, each behind a NUL. */
static void take_bind(const struct field *field)
{
    char *texts[5], *at = field_text(field), *end = at + field->length;
    for (int i = 0; i < 5; i++) {
        if (at > end || container.volume_count == LISTED_MAX)
            return;
        texts[i] = at;
        at += strlen(at) + 1;
    }
    container.volumes[container.volume_count++] = (struct volume){
        .read_only = strcmp(texts[0], "ro") == 0,
        .is_file = strcmp(texts[1], "file") == 0,
        .port = texts[2],
        .target = texts[3],
        .user = texts[4],
    };
}

/* A file is its path, a NUL, its content; a volume is `ro` or `rw`, a NUL, its disk, a NUL, its path. */
static void take_listed(const struct field *field)
{
    char *text = field_text(field);
    size_t first = strlen(text) + 1;
    if (first > field->length)
        return;
    if (field->tag == FIELD_FILE && container.file_count < LISTED_MAX) {
        container.files[container.file_count++] = (struct file){text, text + first, field->length - first};
    } else if (field->tag == FIELD_VOLUME && container.volume_count < LISTED_MAX) {
        char *disk = text + first;
        char *target = disk + strlen(disk) + 1;
        if (target < text + field->length)
            container.volumes[container.volume_count++] = (struct volume){disk, target, strcmp(text, "ro") == 0};
    }
}

/* What a configuration says beside the container. */
struct wanted {
    struct rootfs rootfs;
    uint64_t pids_max, memory_max, steered, egress;
};

static bool start_egress(const struct wanted *wanted, struct failure *failure)
{
    return !wanted->egress || egress_start((uint32_t)(wanted->egress >> 32), (uint32_t)wanted->egress, failure);
}

static void take(struct wanted *wanted, const uint8_t *data, uint32_t size)
{
    struct rootfs *rootfs = &wanted->rootfs;
    struct field field;
    memset(&container, 0, sizeof container);
    while (field_next(&data, &size, &field)) {
        switch (field.tag) {
        case FIELD_HOSTNAME: container.hostname = field_text(&field); break;
        case FIELD_METADATA_DISK: rootfs->metadata_disk = field_text(&field); break;
        case FIELD_WRITABLE_DISK: rootfs->writable_disk = field_text(&field); break;
        case FIELD_PACK_DISK:
            if (rootfs->pack_count < PACKS_MAX)
                rootfs->packs[rootfs->pack_count++] = field_text(&field);
            break;
        case FIELD_NO_ACL: rootfs->no_acl = field_number(&field); break;
        case FIELD_READ_ONLY_PATH:
            if (container.read_only_count < LISTED_MAX)
                container.read_only_paths[container.read_only_count++] = field_text(&field);
            break;
        case FIELD_DIRECTORY:
            if (container.directory_count < LISTED_MAX)
                container.directories[container.directory_count++] = field_text(&field);
            break;
        case FIELD_FILE:
        case FIELD_VOLUME: take_listed(&field); break;
        case FIELD_BIND: take_bind(&field); break;
        case FIELD_SHM_BYTES: container.shm_bytes = field_number(&field); break;
        case FIELD_PIDS_MAX: wanted->pids_max = field_number(&field); break;
        case FIELD_MEMORY_MAX: wanted->memory_max = field_number(&field); break;
        case FIELD_STEERED: wanted->steered = field_number(&field); break;
        case FIELD_AUTHORITY: container.authority = field_text(&field); break;
        case FIELD_EGRESS: wanted->egress = field_number(&field); break;
        }
    }
    rootfs->needs_read_only = container.read_only_count > 0;
}

static bool configure(const uint8_t *data, uint32_t size, struct failure *failure)
{
    static struct wanted wanted; /* large */
    memset(&wanted, 0, sizeof wanted);
    take(&wanted, data, size);
    if (!rootfs_mount(&wanted.rootfs, failure) || !mount_volumes(failure) || !write_files(failure) ||
        !mount_terminals(failure) || !cgroup_make(wanted.pids_max, wanted.memory_max, failure))
        return false;
    if (wanted.steered &&
        !outgoing_start_peers((uint32_t)(wanted.steered >> 32), (uint32_t)wanted.steered, failure))
        return false;
    if (!start_egress(&wanted, failure))
        return false;
    init_pid = container_start(&container, failure);
    if (init_pid < 0)
        return false;
    init_pidfd = (int)syscall(SYS_pidfd_open, init_pid, 0);
    return init_pidfd >= 0 || failed_at(failure, "namespaces");
}

void machine_configure(const uint8_t *data, uint32_t size)
{
    if (configured)
        return;
    configured = true;
    if (in_machine && !configure(data, size, &configure_failure))
        note("%s: %s", configure_failure.stage, strerror(configure_failure.error));
}

void machine_prepare(const uint8_t *data, uint32_t size)
{
    static struct wanted wanted;
    memset(&wanted, 0, sizeof wanted);
    prepare_failure = (struct failure){0};
    if (configured || !in_machine)
        return;
    take(&wanted, data, size);
    if (!rootfs_prepare(&wanted.rootfs, &prepare_failure) || !mount_terminals(&prepare_failure) ||
        !start_egress(&wanted, &prepare_failure))
        note("%s: %s", prepare_failure.stage, strerror(prepare_failure.error));
}

void machine_clear(void)
{
    machine_end_workload();
    processes_clear();
    streams_clear();
    if (init_pid > 0)
        waitpid(init_pid, NULL, 0);
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ; /* nothing had named it yet */
    if (init_pidfd >= 0)
        close(init_pidfd);
    init_pid = 0;
    init_pidfd = -1;
    configured = false;
    configure_failure = (struct failure){0};
    if (!in_machine)
        return;
    cgroup_remove();
    rootfs_clear();
}

/* ---- a snapshot of a run, and the runs that go on from it ---- */

void machine_freeze(void)
{
    freeze_failure = (struct failure){0};
    if (in_machine)
        cgroup_freeze(&freeze_failure);
}

void machine_thaw(void)
{
    if (in_machine && configured)
        cgroup_thaw();
}

/* A child does it: the agent has a host name of its own. */
static bool rename_host(const char *name, struct failure *failure)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0)
        _exit(setns(init_pidfd, CLONE_NEWUTS) < 0 || sethostname(name, strlen(name)) < 0 ? errno : 0);
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return failed_at(failure, "host name");
    errno = WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
    return errno == 0 || failed_at(failure, "host name");
}

static bool renew(const uint8_t *data, uint32_t size, struct failure *failure)
{
    static struct wanted wanted;
    memset(&wanted, 0, sizeof wanted);
    take(&wanted, data, size);
    return write_files(failure) && (!container.hostname || rename_host(container.hostname, failure)) &&
           cgroup_limit(wanted.pids_max, failure);
}

void machine_renew(const uint8_t *data, uint32_t size)
{
    renew_failure = (struct failure){0};
    if (!in_machine)
        return;
    if (renew(data, size, &renew_failure))
        cgroup_thaw();
    else
        note("%s: %s", renew_failure.stage, strerror(renew_failure.error));
}

static void put_failure(struct fields *fields, const struct failure *failure)
{
    fields_put_number(fields, FIELD_ERRNO, (uint64_t)failure->error);
    if (failure->error) {
        fields_put_text(fields, FIELD_STAGE, failure->stage);
        fields_put_text(fields, FIELD_TEXT, strerror(failure->error));
    }
}

void machine_put_frozen(struct fields *fields)
{
    put_failure(fields, &freeze_failure);
}

void machine_put_renewed(struct fields *fields)
{
    put_failure(fields, &renew_failure);
}

void machine_put_prepared(struct fields *fields)
{
    put_failure(fields, &prepare_failure);
}

bool machine_is_configured(void)
{
    return configured;
}

void machine_put_configured(struct fields *fields)
{
    put_failure(fields, &configure_failure);
}

/* ---- the workload ---- */

bool machine_enter(void)
{
    if (!in_machine)
        return true;
    cgroup_join();
    return setns(init_pidfd, CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP) == 0;
}

int machine_open_terminal(unsigned *number)
{
    int fd = open(in_machine ? "/pts/ptmx" : "/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && (ioctl(fd, TIOCSPTLCK, &(int){0}) < 0 || ioctl(fd, TIOCGPTN, number) < 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

void machine_end_workload(void)
{
    if (init_pid > 0)
        kill(init_pid, SIGKILL);
}

uint64_t machine_oom_kills(void)
{
    return in_machine ? cgroup_oom_kills() : 0;
}

void machine_put_stats(struct fields *fields)
{
    struct statvfs disk = {0};
    cgroup_put_stats(fields);
    if (statvfs(UPPER_PATH, &disk) == 0)
        fields_put_number(fields, FIELD_DISK_BYTES, (uint64_t)(disk.f_blocks - disk.f_bfree) * disk.f_frsize);
}

/* ---- the end ---- */

static void unmount(const char *path)
{
    if (umount2(path, 0) < 0 && errno != EINVAL && errno != ENOENT)
        umount2(path, MNT_DETACH);
}

void machine_unmount(void)
{
    if (!in_machine)
        return;
    if (init_pid > 0) {
        machine_end_workload();
        waitpid(init_pid, NULL, 0);
    }
    unmount(ROOT_PATH);
    for (unsigned i = 0; i < container.volume_count; i++) {
        char where[32];
        snprintf(where, sizeof where, "/volumes/%u", i);
        unmount(where);
    }
    unmount(UPPER_PATH);
    sync();
}

_Noreturn void machine_power_off(void)
{
    if (in_machine)
        reboot(RB_POWER_OFF);
    _exit(0);
}
