#include "clock.h"

#include <sys/time.h>
#include <time.h>

enum { AGREEING = 3 };

static const int64_t second = 1000000000;
static const int64_t step_least = 100000000; /* less is slewed: 500 microseconds a second, adjtime(3) */
static const int64_t slew_most = 1000;       /* seconds that adjtime of musl takes */

/* How far the clock was ahead in the last messages, all of which said so. */
static int64_t ahead[AGREEING];
static unsigned ahead_count;

static void slew(int64_t by)
{
    if (by / second > slew_most || by / second < -slew_most)
        by = by < 0 ? -slew_most * second : slew_most * second;
    struct timeval delta = {.tv_sec = by / second, .tv_usec = by % second / 1000};
    if (delta.tv_usec < 0) {
        delta.tv_usec += 1000000;
        delta.tv_sec--;
    }
    adjtime(&delta, NULL);
}

void clock_told(uint64_t ns)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t behind = (int64_t)ns - ((int64_t)now.tv_sec * second + now.tv_nsec);
    if (behind >= 0) {
        ahead_count = 0;
        if (behind < step_least) {
            slew(behind);
            return;
        }
        slew(0);
        struct timespec then = {.tv_sec = (time_t)(ns / second), .tv_nsec = (long)(ns % second)};
        clock_settime(CLOCK_REALTIME, &then);
        return;
    }
    ahead[ahead_count++ % AGREEING] = behind;
    if (ahead_count < AGREEING)
        return;
    int64_t least = ahead[0];
    for (unsigned i = 1; i < AGREEING; i++)
        if (ahead[i] > least)
            least = ahead[i];
    slew(least);
}
