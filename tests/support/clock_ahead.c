/* A clock that is two hours ahead, for one process: loaded before libc (LD_PRELOAD). Time that is measured is left alone. */
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
