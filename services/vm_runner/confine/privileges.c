#include "confine.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static void drop_bounding_set(void)
{
    for (unsigned long capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 && errno != EPERM) /* EPERM: there was no privilege */
            fail("drop capability %lu", capability);
}

static void become(uid_t uid, gid_t group)
{
    if (setgroups(group ? 1 : 0, &group) < 0)
        fail("setgroups");
    if (setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
        fail("become user %u", uid);
    if (setresuid(-1, 0, -1) == 0) {
        errno = 0;
        fail("user %u can become root again", uid);
    }
}

static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (syscall(SYS_capset, &header, none) < 0)
        fail("capset");
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        fail("clear ambient capabilities");
}

void privileges_drop(const struct options *options, uid_t uid)
{
    drop_bounding_set();
    if (options->first_uid)
        become(uid, options->group);
    drop_capabilities();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        fail("no_new_privs");
}
