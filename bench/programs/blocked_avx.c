/* Uses YMM registers for a share of its time and clears them: prints after how many milliseconds SIGILL came, or -1.
   Arguments: iterations that use them, iterations that do not, seconds to try. */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double begun;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void caught(int number) {
    (void)number;
    char line[64];
    int size = snprintf(line, sizeof line, "%.1f\n", (now() - begun) * 1e3);
    write(1, line, size);
    _exit(0);
}

int main(int count, char **words) {
    if (count < 4) return 2;
    int use = atoi(words[1]), rest = atoi(words[2]);
    double patience = atof(words[3]);
    static const double values[4] = {1, 2, 3, 4};
    signal(SIGILL, caught);
    begun = now();
    while (now() - begun < patience) {
        __asm__ volatile("mov %1, %%ecx\n1: vmovupd %0, %%ymm0\nvaddpd %%ymm0, %%ymm0, %%ymm1\ndec %%ecx\njnz 1b\nvzeroupper"
                         ::"m"(values), "r"(use) : "ecx", "xmm0", "xmm1");
        __asm__ volatile("mov %0, %%ecx\n1: dec %%ecx\njnz 1b" ::"r"(rest) : "ecx");
    }
    puts("-1");
    return 0;
}
