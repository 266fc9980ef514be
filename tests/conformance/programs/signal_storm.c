/* Four threads under a rain of signals: none is lost, no call returns anything wrong, no register is spoilt. */
#include "probe.h"
#include <poll.h>

#define THREADS 4
#define EACH 250

static _Thread_local int me;
static volatile int handled[THREADS], ready, done;
static volatile long wrong[THREADS], interrupted;
static pid_t tids[THREADS];

static void handler(int n, siginfo_t *info, void *context) {
    volatile double spoil[4] = {1, 2, 3, info->si_value.sival_int};
    (void)n, (void)context;
    for (int i = 0; i < 4; i++) spoil[i] *= spoil[(i + 1) % 4];
    getppid();
    handled[me]++;
}

static void compute(void) {
    double sum = 0;
    unsigned long word = 1;
    for (int i = 1; i <= 3000; i++) sum += i * 0.5, word = word * 6364136223846793005UL + 1;
    wrong[me] += sum != 2250750.0 || word != 2547808735701589321UL;
}

static void call(int fds[2], int number) {
    char c = (char)number;
    struct pollfd p = {fds[0], POLLIN, 0};
    if (getppid() == 0) wrong[me]++;
    if (write(fds[1], &c, 1) != 1) wrong[me]++;
    c = 0;
    if (read(fds[0], &c, 1) != 1 || c != (char)number) wrong[me]++;
    if (poll(&p, 1, 1) == -1) {
        if (errno != EINTR) wrong[me]++;
        interrupted++;
    }
    if (nanosleep(&(struct timespec){0, 100000}, 0) == -1 && errno != EINTR) wrong[me]++;
}

static void *receiver(void *number) {
    int fds[2];
    static char stacks[THREADS][65536];
    me = (int)(long)number;
    pipe(fds);
    if (me % 2) sigaltstack(&(stack_t){.ss_sp = stacks[me], .ss_size = sizeof stacks[me]}, 0);
    tids[me] = (pid_t)syscall(SYS_gettid);
    __atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
    for (int round = 0; !done || handled[me] < 2 * EACH; round++) compute(), call(fds, round);
    return 0;
}

static void *sender(void *first) {
    me = 0;
    for (int i = 0; i < EACH; i++)
        for (int t = 0; t < THREADS; t++) {
            siginfo_t info = {.si_code = SI_QUEUE};
            info.si_value.sival_int = i;
            while (syscall(SYS_rt_tgsigqueueinfo, getpid(), tids[t], SIGRTMIN + (int)(long)first, &info) == -1) sched_yield();
            if (i % 16 == 0) sched_yield();
        }
    return 0;
}

int main(void) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
    pthread_t receivers[THREADS], senders[2];
    sigset_t set;
    sigaddset(&action.sa_mask, SIGRTMIN), sigaddset(&action.sa_mask, SIGRTMIN + 1);
    sigaction(SIGRTMIN, &action, 0), sigaction(SIGRTMIN + 1, &action, 0);
    for (long t = 0; t < THREADS; t++) pthread_create(&receivers[t], 0, receiver, (void *)t);
    while (ready < THREADS) sched_yield();
    sigemptyset(&set), sigaddset(&set, SIGRTMIN), sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &set, 0);
    for (long s = 0; s < 2; s++) pthread_create(&senders[s], 0, sender, (void *)s);
    for (int s = 0; s < 2; s++) pthread_join(senders[s], 0);
    done = 1;
    for (int t = 0; t < THREADS; t++) pthread_join(receivers[t], 0);
    for (int t = 0; t < THREADS; t++) printf("thread %d: handled %d wrong %ld\n", t, handled[t], wrong[t]);
    return 0;
}
