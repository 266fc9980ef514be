/* Shared by the probes: say what a call answered, by name, one line each, the same on every machine. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096L

/* Say the value of a call, or the name of its error. */
#define SAY(call)                                                                   \
    do {                                                                            \
        errno = 0;                                                                  \
        long value_ = (long)(call);                                                 \
        if (value_ == -1) printf("%s = %s\n", #call, strerrorname_np(errno));       \
        else printf("%s = %ld\n", #call, value_);                                   \
        fflush(stdout);                                                             \
    } while (0)

/* Say only whether a call succeeded: for values that differ from run to run. */
#define TRY(call)                                                                   \
    do {                                                                            \
        errno = 0;                                                                  \
        printf("%s: %s\n", #call, (long)(call) == -1 ? strerrorname_np(errno) : "ok"); \
        fflush(stdout);                                                             \
    } while (0)

__attribute__((unused)) static void nap(int milliseconds) {
    struct timespec t = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    while (nanosleep(&t, &t) == -1 && errno == EINTR) {}
}

__attribute__((unused)) static long milliseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
