/* The pid 1 of the bare boot that starts of lns are measured against: it reports that it runs. */
#include <unistd.h>

int main(void)
{
    static const char said[] = "bare init\n";

    if (write(1, said, sizeof said - 1) < 0)
        return 1;
    for (;;)
        pause();
}
