/* How the launcher ends when it cannot do what was asked: one line on standard error, and one exit code. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "confine.h"

_Noreturn void fail(const char *format, ...)
{
    char message[512];
    int error = errno;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "lns-confine: %s%s%s\n", message, error ? ": " : "", error ? strerror(error) : "");
    _exit(FAILED);
}
