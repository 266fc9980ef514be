/* Random updates of a table larger than any TLB reaches, by several threads, in phases.
 *
 *     gups THREADS MIB UPDATES [CPU...]
 *
 * Prints "ready"; for every line read runs one phase of UPDATES updates in each thread and prints "done SECONDS"; ends
 * with its input. With CPUs thread k is pinned to the k-th of them. The threads wait outside the processor in between.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

#define MOST_THREADS 64
#define PIECE (1 << 20)

static uint64_t *table, mask;
static long updates;
static pthread_barrier_t begin, end;
static struct worker { pthread_t id; int number, cpu; } workers[MOST_THREADS];

static void *work(void *argument) {
    struct worker *me = argument;
    uint64_t seed = 0x9e3779b97f4a7c15u * (me->number + 1);
    if (me->cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(me->cpu, &set);
        if (sched_setaffinity(0, sizeof set, &set)) perror("sched_setaffinity"), exit(3);
    }
    for (;;) {
        pthread_barrier_wait(&begin);
        for (long i = 0; i < updates; i++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            __atomic_fetch_xor(&table[seed & mask], seed, __ATOMIC_RELAXED);
        }
        pthread_barrier_wait(&end);
    }
    return NULL;
}

/* Walks of four levels are what is measured: no page of the table may be a large one, so it is mapped piece by piece. */
static uint64_t *map_small_pages(size_t bytes) {
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    char *place = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED) perror("mmap"), exit(3);
    for (size_t at = 0; at < bytes; at += PIECE)
        if (mmap(place + at, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
            perror("mmap"), exit(3);
    return (uint64_t *)place;
}

int main(int argc, char **argv) {
    if (argc < 4) return fprintf(stderr, "usage: gups THREADS MIB UPDATES [CPU...]\n"), 2;
    int threads = atoi(argv[1]);
    size_t bytes = (size_t)atol(argv[2]) << 20;
    updates = atol(argv[3]);
    if (threads < 1 || threads > MOST_THREADS || !bytes || bytes & (bytes - 1)) return fprintf(stderr, "bad numbers\n"), 2;
    table = map_small_pages(bytes);
    mask = bytes / sizeof *table - 1;
    for (size_t i = 0; i < bytes / sizeof *table; i += 512) table[i] = i;
    pthread_barrier_init(&begin, NULL, threads + 1);
    pthread_barrier_init(&end, NULL, threads + 1);
    for (int i = 0; i < threads; i++) {
        workers[i].number = i;
        workers[i].cpu = argc > 4 + i ? atoi(argv[4 + i]) : -1;
        if (pthread_create(&workers[i].id, NULL, work, &workers[i])) return perror("pthread_create"), 3;
    }
    char line[64];
    puts("ready"), fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        pthread_barrier_wait(&begin);
        pthread_barrier_wait(&end);
        clock_gettime(CLOCK_MONOTONIC, &b);
        printf("done %.6f\n", (b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) / 1e9), fflush(stdout);
    }
    exit(0);
}
