/* Sets the wall clock of one process two hours ahead: loaded before libc (LD_PRELOAD). The monotonic clock is unchanged. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, id, now);
    if (!failed && id == CLOCK_REALTIME) {
        now->tv_sec += 2 * 60 * 60;
    }
    return failed;
}
