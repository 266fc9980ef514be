/* A thread scribbles over its process's call slots while another calls the kernel: the process may harm itself only. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLOTS 0x7ffff1000000ul
#define STRIDE 0x2000ul

static sigjmp_buf away;
static volatile int stop;
static volatile unsigned *found[64];
static int count;

static void fault(int signo) { (void)signo; siglongjmp(away, 1); }

static void *caller(void *unused) {
    while (!stop) { syscall(SYS_getppid); syscall(SYS_lseek, 0, 0, 0); }
    return unused;
}

int main(void) {
    alarm(4); /* a thread whose slot says nonsense may spin for ever: its own loss */
    struct sigaction action = {.sa_handler = fault, .sa_flags = SA_NODEFER};
    sigaction(SIGSEGV, &action, 0);
    for (int i = 0; i < 3000; i++) syscall(SYS_getppid); /* get hot, so that there is a slot */
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], 0, caller, 0);
    usleep(200000);
    for (unsigned long i = 0; i < 64; i++) {
        volatile unsigned *slot = (unsigned *)(SLOTS + i * STRIDE + 0x1000);
        if (!sigsetjmp(away, 1)) { (void)*slot; found[count++] = slot; }
    }
    srand(7);
    for (int round = 0; round < 200000 && count; round++) {
        volatile unsigned *slot = found[rand() % count];
        slot[rand() % 40] = rand() % 3 ? (unsigned)rand() % 6 : (unsigned)rand();
    }
    _exit(0);
}
