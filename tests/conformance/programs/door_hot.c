/* Hot system calls from several threads while signals arrive: every answer is right, every signal is delivered. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>
#include <poll.h>

static volatile sig_atomic_t ticks;
static int wrong;

static void tick(int signo) { (void)signo; ticks++; }

static long raw(long number, long a, long b, long c) {
    register long r10 __asm__("r10") = 0x1010, r8 __asm__("r8") = 0x808, r9 __asm__("r9") = 0x909;
    long rbx = 0x1234, result = number;
    __asm__ volatile("syscall" : "+a"(result), "+r"(r10), "+r"(r8), "+r"(r9), "+b"(rbx)
                     : "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    if (r10 != 0x1010 || r8 != 0x808 || r9 != 0x909 || rbx != 0x1234) wrong++;
    return result;
}

static void *hammer(void *argument) {
    long expected = getpid();
    int *fds = argument;
    char text[64];
    for (int i = 0; i < 20000; i++) {
        if (raw(SYS_getpid, 1, 2, 3) != expected) wrong++;
        if (raw(SYS_lseek, 99, 0, 0) != -EBADF) wrong++;
        if (i % 8 == 0) {
            memset(text, 0, sizeof text);
            if (write(fds[1], "0123456789", 10) != 10) wrong++;
            if (read(fds[0], text, 10) != 10 || memcmp(text, "0123456789", 10)) wrong++;
        }
    }
    return 0;
}

int main(void) {
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, 0);
    struct itimerval every = {{0, 2000}, {0, 2000}};
    setitimer(ITIMER_REAL, &every, 0);
    pthread_t threads[3];
    int fds[3][2];
    for (int i = 0; i < 3; i++) { if (pipe(fds[i])) return 2; pthread_create(&threads[i], 0, hammer, fds[i]); }
    for (int i = 0; i < 3; i++) pthread_join(threads[i], 0);
    struct itimerval off = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &off, 0);
    printf("wrong answers: %d\n", wrong);
    printf("ticks arrived: %s\n", ticks > 3 ? "yes" : "no");
    /* a signal sent to oneself is handled before kill returns */
    int late = 0;
    for (int i = 0; i < 3000; i++) { int before = ticks; kill(getpid(), SIGALRM); late += ticks == before; }
    printf("handled late: %d\n", late);
    /* calls that sleep, in the middle of hot ones */
    for (int i = 0; i < 300; i++) { getppid(); getppid(); if (i % 50 == 0) { poll(0, 0, 3); usleep(500); } }
    int pair[2];
    if (pipe(pair)) return 2;
    if (!fork()) { usleep(100000); if (write(pair[1], "x", 1) != 1) _exit(1); _exit(0); }
    char c = 0;
    for (int i = 0; i < 200; i++) getppid();
    printf("slept in read: %zd %c\n", read(pair[0], &c, 1), c);
    return 0;
}
