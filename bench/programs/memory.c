/* Memory: touch (seconds per page of 256 MiB, fresh) | fork (seconds for fork, exit and wait of a process of 50 MiB) | exec. */
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}
static char *fresh(long size) { return mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

int main(int argc, char **argv) {
    long size = 256L << 20, pages = size / 4096, rounds = 10;
    if (argc < 2) return 2;
    if (!strcmp(argv[1], "touch")) {
        volatile char *area = fresh(size);
        double start = now();
        for (long i = 0; i < pages; i++) area[i * 4096] = 1;
        printf("%.9f\n", (now() - start) / pages);
        return 0;
    }
    memset(fresh(50 << 20), 7, 50 << 20);
    double start = now();
    for (long i = 0; i < rounds; i++) {
        pid_t child;
        if (!strcmp(argv[1], "exec")) {
            char *words[] = {"/bin/true", 0};
            if (posix_spawn(&child, words[0], 0, 0, words, environ)) return 3;
        } else if (!(child = fork())) {
            _exit(0);
        }
        if (waitpid(child, 0, 0) != child) return 3;
    }
    printf("%.9f\n", (now() - start) / rounds);
    return 0;
}
