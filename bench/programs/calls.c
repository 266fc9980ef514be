/* What one system call costs: getppid | file-read | file-write | pipe | time | gettimeofday. Prints seconds per call. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static char block[4096];
static int file, ends[2];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}
static void getppid_(void) { syscall(SYS_getppid); }
static void file_read(void) { if (pread(file, block, 4096, 0) != 4096) exit(3); }
static void file_write(void) { if (pwrite(file, block, 4096, 0) != 4096) exit(3); }
static void pipe_both(void) { if (write(ends[1], block, 4096) != 4096 || read(ends[0], block, 4096) != 4096) exit(3); }
static void time_(void) { struct timespec t; clock_gettime(CLOCK_REALTIME, &t); }
static void gettimeofday_(void) { struct timeval t; gettimeofday(&t, 0); }

int main(int argc, char **argv) {
    const struct { const char *name; void (*call)(void); long calls; } all[] = {
        {"getppid", getppid_, 20000}, {"file-read", file_read, 5000}, {"file-write", file_write, 5000},
        {"pipe", pipe_both, 5000}, {"time", time_, 200000}, {"gettimeofday", gettimeofday_, 200000}};
    for (int i = 0; argc > 1 && i < 6; i++) {
        if (strcmp(argv[1], all[i].name)) continue;
        file = open("/tmp/enisle-bench-file", O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (file < 0 || write(file, block, 4096) != 4096 || pipe(ends)) return 4;
        for (long n = 0; n < all[i].calls / 10; n++) all[i].call();
        double start = now();
        for (long n = 0; n < all[i].calls; n++) all[i].call();
        printf("%.9f\n", (now() - start) / all[i].calls);
        unlink("/tmp/enisle-bench-file");
        return 0;
    }
    return 2;
}
