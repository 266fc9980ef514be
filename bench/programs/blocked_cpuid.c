/* Prints the median time of one CPUID, and of one RDTSC, in microseconds. */

#include <cpuid.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}
static int order(const void *a, const void *b) { return (*(double *)a > *(double *)b) - (*(double *)a < *(double *)b); }

int main(void) {
    enum { rounds = 2000 };
    static double times[rounds];
    unsigned a, b, c, d;
    for (int i = 0; i < rounds; i++) {
        double begun = now();
        __cpuid(1, a, b, c, d);
        times[i] = now() - begun;
    }
    qsort(times, rounds, sizeof *times, order);
    double cpuid = times[rounds / 2];
    volatile unsigned long long sum = 0;
    double begun = now();
    for (int i = 0; i < 1000000; i++) sum += __rdtsc();
    printf("%.2f %.4f\n", cpuid, (now() - begun) / 1e6);
    return 0;
}
