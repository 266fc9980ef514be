/* Handlers, masks, queues, alternate stacks, restarting, timers, signalfd, and what a handler must preserve. */
#include "probe.h"
#include <poll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <ucontext.h>

static volatile sig_atomic_t count;
static volatile int depth, deepest, queued[40], on_alternate;
static char alternate[64 * 1024];

static void bump(int n) { (void)n; count++; }
static void note(int n, siginfo_t *info, void *c) { (void)n, (void)c; queued[count++] = info->si_value.sival_int; }
static void nest(int n) {
    if (++depth > deepest) deepest = depth;
    if (deepest < 3) raise(n);
    depth--;
}
static void where(int n) {
    char here;
    (void)n;
    on_alternate = &here > alternate && &here < alternate + sizeof alternate;
    stack_t now;
    sigaltstack(0, &now);
    printf("in the handler: on the stack flag %d\n", now.ss_flags);
}
static sigjmp_buf back;
static void overflow(int n) { (void)n; siglongjmp(back, 1); }
static volatile int forever = 1;
static void recurse(void) { volatile char big[10000]; big[0] = 1; if (forever) recurse(); big[1] = big[0]; }

static void install(int n, void (*f)(int), int flags) {
    struct sigaction action = {.sa_handler = f, .sa_flags = flags};
    sigaction(n, &action, 0);
}

static void send_later(int n, int ms) {
    struct itimerval t = {{0, 0}, {0, ms * 1000}};
    (void)n;
    setitimer(ITIMER_REAL, &t, 0);
}

static void scramble(int n) { /* use every vector register and the flags */
    (void)n;
    __asm__ volatile("pxor %%xmm0, %%xmm0\n pxor %%xmm1, %%xmm1\n pxor %%xmm7, %%xmm7\n pxor %%xmm15, %%xmm15\n fninit\n std\n cld" ::: "xmm0", "xmm1", "xmm7", "xmm15", "cc");
    count++;
}

static void preserve(void) {
    double x = 1.5, y = 2.5, sum = 0;
    unsigned long a = 1;
    install(SIGALRM, scramble, SA_RESTART);
    struct itimerval t = {{0, 3000}, {0, 3000}}, stop = {{0, 0}, {0, 0}};
    count = 0;
    setitimer(ITIMER_REAL, &t, 0);
    long start = milliseconds(), wrong = 0;
    while (count < 20 && milliseconds() - start < 10000) {
        sum = 0, a = 1;
        for (int i = 0; i < 20000; i++) { sum += x * y; a = a * 6364136223846793005UL + 1; }
        wrong += sum != 75000.0;
    }
    setitimer(ITIMER_REAL, &stop, 0);
    printf("registers kept over %s signals: wrong %ld, last %lu\n", count >= 20 ? "twenty" : "few", wrong, a);
}

static void restarting(int flags, const char *title) {
    int p[2];
    char c;
    pipe(p);
    install(SIGALRM, bump, flags);
    printf("-- %s\n", title);
    pid_t child = fork();
    if (!child) { nap(400); write(p[1], "x", 1); _exit(0); }
    count = 0;
    send_later(SIGALRM, 60);
    SAY(read(p[0], &c, 1));
    printf("handled %d\n", count);
    send_later(SIGALRM, 60);
    SAY(poll(&(struct pollfd){p[0], POLLIN, 0}, 1, 300) >= 0 ? 1 : -1);
    send_later(SIGALRM, 60);
    SAY(nanosleep(&(struct timespec){0, 150000000}, 0));
    send_later(SIGALRM, 60);
    SAY(waitpid(child, 0, 0) == child ? 1 : -1);
    waitpid(child, 0, 0);
    send_later(SIGALRM, 60);
    SAY(pause());
    child = fork();
    if (!child) { nap(150); _exit(0); }
    send_later(SIGALRM, 60);
    SAY(waitpid(child, 0, 0) == child ? 1 : -1);
    waitpid(child, 0, 0);
    int futex = 0;
    send_later(SIGALRM, 60);
    SAY(syscall(SYS_futex, &futex, 0, 0, &(struct timespec){0, 200000000}));
}

int main(void) {
    sigset_t set, old;
    int status;
    siginfo_t info;
    install(SIGUSR1, bump, 0);
    SAY(raise(SIGUSR1));
    SAY(kill(getpid(), SIGUSR1));
    SAY(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1));
    printf("handled %d\n", count);
    SAY(kill(getpid(), 65));
    SAY(kill(getpid(), 0));
    SAY(kill(999999, SIGUSR1));
    SAY(syscall(SYS_tgkill, getpid(), 999999, 0));
    SAY(sigaction(SIGKILL, &(struct sigaction){.sa_handler = bump}, 0));
    SAY(sigaction(70, 0, 0));
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN);
    sigaddset(&set, SIGRTMIN + 1);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, &old);
    count = 0;
    for (int i = 0; i < 3; i++) kill(getpid(), SIGUSR1);
    sigpending(&old);
    printf("pending %d, handled %d\n", sigismember(&old, SIGUSR1), count);
    sigprocmask(SIG_UNBLOCK, &(sigset_t){{1UL << (SIGUSR1 - 1)}}, 0);
    printf("standard signals do not queue: %d\n", count);

    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO};
    sigaction(SIGRTMIN, &action, 0);
    sigaction(SIGRTMIN + 1, &action, 0);
    count = 0;
    for (int i = 0; i < 3; i++) sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 20 + i});
    for (int i = 0; i < 3; i++) sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 10 + i});
    sigprocmask(SIG_UNBLOCK, &set, 0);
    printf("real-time signals queue:");
    for (int i = 0; i < count; i++) printf(" %d", queued[i]);
    printf("\n");
    sigprocmask(SIG_BLOCK, &set, 0);
    sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 33});
    SAY(sigwaitinfo(&set, &info) == SIGRTMIN);
    printf("waited: value %d code %d pid %d\n", info.si_value.sival_int, info.si_code, info.si_pid == getpid());
    SAY(sigtimedwait(&set, &info, &(struct timespec){0, 30000000}));
    int sfd = signalfd(-1, &set, SFD_NONBLOCK);
    struct signalfd_siginfo ssi;
    SAY(read(sfd, &ssi, sizeof ssi));
    kill(getpid(), SIGUSR2);
    SAY(poll(&(struct pollfd){sfd, POLLIN, 0}, 1, 1000));
    SAY(read(sfd, &ssi, sizeof ssi));
    printf("signalfd: %u code %d pid %d\n", ssi.ssi_signo, ssi.ssi_code, (int)ssi.ssi_pid == getpid());
    sigprocmask(SIG_UNBLOCK, &set, 0);

    install(SIGUSR2, nest, SA_NODEFER);
    raise(SIGUSR2);
    printf("SA_NODEFER nests to %d\n", deepest);
    deepest = depth = 0;
    install(SIGUSR2, bump, SA_RESETHAND);
    raise(SIGUSR2);
    sigaction(SIGUSR2, 0, &action);
    printf("SA_RESETHAND leaves default: %d\n", action.sa_handler == SIG_DFL);
    install(SIGALRM, bump, 0);
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigprocmask(SIG_BLOCK, &set, &old);
    send_later(SIGALRM, 50);
    sigfillset(&set);
    sigdelset(&set, SIGALRM);
    SAY(sigsuspend(&set));
    sigprocmask(SIG_SETMASK, &old, 0);

    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    SAY(sigaltstack(&(stack_t){.ss_sp = alternate, .ss_size = 100}, 0));
    SAY(sigaltstack(&stack, 0));
    install(SIGUSR1, where, SA_ONSTACK);
    raise(SIGUSR1);
    printf("handler on the alternate stack: %d\n", on_alternate);
    install(SIGSEGV, overflow, SA_ONSTACK);
    fflush(stdout);
    if (!sigsetjmp(back, 1)) recurse();
    printf("survived a stack overflow\n");

    restarting(SA_RESTART, "SA_RESTART");
    restarting(0, "without SA_RESTART");

    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 88};
    action = (struct sigaction){.sa_sigaction = note, .sa_flags = SA_SIGINFO};
    sigaction(SIGRTMIN, &action, 0);
    count = 0;
    SAY(timer_create(CLOCK_MONOTONIC, &event, &timer));
    SAY(timer_settime(timer, 0, &(struct itimerspec){{0, 20000000}, {0, 20000000}}, 0));
    for (int i = 0; i < 100 && count < 3; i++) nap(10);
    printf("the timer fired with %d\n", queued[0]);
    SAY(timer_delete(timer));
    SAY(timer_delete(timer));
    int tfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    uint64_t ticks;
    SAY(timerfd_settime(tfd, 0, &(struct itimerspec){{0, 10000000}, {0, 10000000}}, 0));
    nap(65);
    SAY(read(tfd, &ticks, 8));
    printf("several ticks: %d\n", ticks >= 5 && ticks < 60);
    SAY(alarm(100) == 0 && alarm(0) == 100);
    preserve();

    pid_t child = fork();
    if (!child) for (;;) pause();
    kill(child, SIGSTOP);
    SAY(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    kill(child, SIGCONT);
    SAY(waitpid(child, &status, WCONTINUED) == child && WIFCONTINUED(status));
    kill(child, SIGTERM);
    SAY(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    signal(SIGCHLD, SIG_IGN);
    child = fork();
    if (!child) _exit(0);
    SAY(waitpid(child, &status, 0));
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, 0);
    signal(SIGUSR2, SIG_IGN);
    fflush(stdout);
    execl("/bin/grep", "grep", "-E", "Sig(Blk|Ign)", "/proc/self/status", NULL);
    return 0;
}
