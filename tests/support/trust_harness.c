/* Runs the guest agent's `trust_install` in a root of a test's own: HARNESS ROOT AUTHORITY-FILE AGENT-ROOT. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "trust.h"

void note(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

int main(int count, char **arguments)
{
    static char authority[65536];
    if (count != 4)
        return 2;
    int file = open(arguments[2], O_RDONLY);
    ssize_t size = read(file, authority, sizeof authority);
    int agent_root = open(arguments[3], O_PATH | O_DIRECTORY);
    if (size < 0 || agent_root < 0 || chroot(arguments[1]) < 0 || chdir("/") < 0)
        return 1;
    trust_install(authority, (size_t)size, agent_root);
    return 0;
}
