/* Uses YMM registers where they are not permitted: how soon SIGILL comes, and what is left of the upper halves. */

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static struct timespec begun;

static void report(int number, siginfo_t *info, void *context) {
    (void)info, (void)context;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double upper[4];
    __asm__ volatile("vmovupd %%ymm0, %0" : "=m"(upper));
    int zero = upper[2] == 0 && upper[3] == 0;
    char line[128];
    int size = snprintf(line, sizeof line, "signal: %s\nupper halves: %s\nmilliseconds: %.1f\n",
                        number == SIGILL ? "SIGILL" : "other", zero ? "zero" : "kept",
                        (now.tv_sec - begun.tv_sec) * 1e3 + (now.tv_nsec - begun.tv_nsec) / 1e6);
    write(1, line, size);
    _exit(0);
}

int main(int count, char **words) {
    struct sigaction action = {.sa_sigaction = report, .sa_flags = SA_SIGINFO};
    sigaction(SIGILL, &action, NULL);
    static const double values[4] = {1, 2, 3, 4};
    int calling = count > 1 && !strcmp(words[1], "calling");
    clock_gettime(CLOCK_MONOTONIC, &begun);
    struct timespec now = begun;
    __asm__ volatile("vmovupd %0, %%ymm0" :: "m"(values) : "xmm0");
    while (now.tv_sec - begun.tv_sec < 20) {
        if (calling) getppid();
        else for (volatile long i = 0; i < 1000000; i++);
        clock_gettime(CLOCK_MONOTONIC, &now);
    }
    printf("signal: none\n");
    return 0;
}
