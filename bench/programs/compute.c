/* Computation: integer | float | avx2 | memory. Prints the seconds it took and a checksum. */
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double integer(void) { /* a sieve, then xorshift and division */
    enum { N = 4000000 };
    static char composite[N];
    uint64_t x = 88172645463325252u, sum = 0;
    for (long i = 2; i * i < N; i++)
        if (!composite[i]) for (long j = i * i; j < N; j += i) composite[j] = 1;
    for (long i = 2; i < N; i++) sum += !composite[i];
    for (long i = 0; i < 30000000; i++) { x ^= x << 13; x ^= x >> 7; x ^= x << 17; sum += x % 1000003; }
    return (double)sum;
}

static double floating(void) { /* a chaotic orbit and a series */
    double x = 0.5, sum = 0;
    for (long i = 1; i < 12000000; i++) { x = 3.9 * x * (1 - x); sum += sqrt(x) / i + sin(x); }
    return sum;
}

__attribute__((target("avx2,fma"))) static double avx2(void) { /* C += A * B */
    enum { N = 448 };
    float *a = aligned_alloc(32, N * N * 4), *b = aligned_alloc(32, N * N * 4), *c = aligned_alloc(32, N * N * 4);
    for (int i = 0; i < N * N; i++) { a[i] = i % 7; b[i] = i % 5; c[i] = 0; }
    for (int round = 0; round < 24; round++)
        for (int i = 0; i < N; i++)
            for (int k = 0; k < N; k++) {
                __m256 x = _mm256_set1_ps(a[i * N + k]);
                for (int j = 0; j < N; j += 8)
                    _mm256_store_ps(c + i * N + j, _mm256_fmadd_ps(x, _mm256_load_ps(b + k * N + j), _mm256_load_ps(c + i * N + j)));
            }
    return c[N * N - 1];
}

static double memory(void) { /* a random walk and a stream over 96 MiB */
    enum { N = 24 << 20 };
    uint32_t *next = malloc(N * 4UL), at = 0;
    uint64_t x = 7, sum = 0;
    for (uint32_t i = 0; i < N; i++) next[i] = (uint32_t)(((uint64_t)i * 2654435761u + 12345) % N);
    for (long i = 0; i < 3000000; i++) { at = next[at]; x += at; }
    for (int round = 0; round < 6; round++) for (uint32_t i = 0; i < N; i++) sum += next[i];
    return (double)(x + sum);
}

int main(int argc, char **argv) {
    const struct { const char *name; double (*run)(void); } kernels[] = {
        {"integer", integer}, {"float", floating}, {"avx2", avx2}, {"memory", memory}};
    for (int i = 0; argc > 1 && i < 4; i++)
        if (!strcmp(argv[1], kernels[i].name)) {
            double start = now(), answer = kernels[i].run();
            printf("%.6f %.6g\n", now() - start, answer);
            return 0;
        }
    return 2;
}
