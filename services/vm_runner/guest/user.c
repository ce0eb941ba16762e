#include "user.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 16384, FIELDS_MAX = 7 };

/* Splits a line at colons; the C library's readers would ask daemons of the image. */
static int split(char *line, char *fields[FIELDS_MAX])
{
    int count = 0;
    line[strcspn(line, "\r\n")] = '\0';
    for (char *at = line; count < FIELDS_MAX;) {
        fields[count++] = at;
        char *colon = strchr(at, ':');
        if (!colon)
            break;
        *colon = '\0';
        at = colon + 1;
    }
    return count;
}

static bool number(const char *text, unsigned long *value)
{
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    *value = strtoul(text, &end, 10);
    return *end == '\0' && *value < 0xffffffffu;
}

/* Finds the line of `file` whose name is `name`, or else whose third field is the number `name`. */
static bool find_line(const char *file, const char *name, int least, char *line, char *fields[FIELDS_MAX])
{
    unsigned long wanted = 0, id;
    bool is_number = number(name, &wanted);
    for (int by_number = 0; by_number <= is_number; by_number++) {
        FILE *stream = fopen(file, "re");
        if (!stream)
            return false;
        while (fgets(line, LINE_BYTES, stream)) {
            if (split(line, fields) < least || !number(fields[2], &id))
                continue;
            if (by_number ? id == wanted : strcmp(fields[0], name) == 0) {
                fclose(stream);
                return true;
            }
        }
        fclose(stream);
    }
    return false;
}

static void add_group(struct identity *identity, gid_t gid)
{
    for (unsigned i = 0; i < identity->group_count; i++)
        if (identity->groups[i] == gid)
            return;
    if (identity->group_count < GROUPS_MAX)
        identity->groups[identity->group_count++] = gid;
}

/* Adds the groups that name the user as a member. */
static void add_memberships(struct identity *identity, const char *user)
{
    static char line[LINE_BYTES];
    char *fields[FIELDS_MAX];
    unsigned long gid;
    FILE *stream = fopen("/etc/group", "re");
    if (!stream)
        return;
    while (fgets(line, sizeof line, stream)) {
        if (split(line, fields) < 4 || !number(fields[2], &gid))
            continue;
        for (char *at = fields[3], *member; (member = strsep(&at, ",")) != NULL;)
            if (strcmp(member, user) == 0)
                add_group(identity, (gid_t)gid);
    }
    fclose(stream);
}

const char *identity_add_group(const char *text, struct identity *identity)
{
    static char line[LINE_BYTES];
    char *fields[FIELDS_MAX];
    unsigned long gid = 0;
    if (find_line("/etc/group", text, 3, line, fields)) {
        number(fields[2], &gid);
    } else if (!number(text, &gid)) {
        return text;
    }
    add_group(identity, (gid_t)gid);
    return NULL;
}

const char *identity_find(const char *text, struct identity *identity)
{
    static char wanted[LINE_BYTES], line[LINE_BYTES];
    char *fields[FIELDS_MAX];
    unsigned long id = 0, gid = 0;
    memset(identity, 0, sizeof *identity);
    strcpy(identity->home, "/");
    snprintf(wanted, sizeof wanted, "%s", *text ? text : "0");
    char *group = strchr(wanted, ':');
    if (group)
        *group++ = '\0';
    if (find_line("/etc/passwd", *wanted ? wanted : "0", 6, line, fields)) {
        number(fields[2], &id);
        identity->uid = (uid_t)id;
        identity->gid = number(fields[3], &gid) ? (gid_t)gid : 0;
        if (*fields[5] == '/')
            snprintf(identity->home, sizeof identity->home, "%s", fields[5]);
        if (!group || !*group)
            add_memberships(identity, fields[0]);
    } else if (number(*wanted ? wanted : "0", &id)) {
        identity->uid = (uid_t)id;
        if (id == 0)
            strcpy(identity->home, "/root");
    } else {
        return "user";
    }
    if (group && *group) {
        struct identity chosen = {0};
        if (identity_add_group(group, &chosen))
            return "group";
        identity->gid = chosen.groups[0];
    }
    add_group(identity, identity->gid);
    return NULL;
}
