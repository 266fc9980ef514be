/* Who may send what to whom, what the receiver is told, which thread takes it, and every way of waiting for one. */
#include "probe.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/signalfd.h>

static volatile int count, last;
static pid_t me;

static void bump(int n) { last = n, count++; }
static const char *who(pid_t pid) { return pid == me ? "me" : pid == 0 ? "0" : pid > 0 ? "another" : "?"; }
static void tell(int n, siginfo_t *info, void *context) {
    (void)context;
    printf("  signal %d code %d errno %d from %s uid %d value %x\n", n, info->si_code, info->si_errno, who(info->si_pid),
           info->si_uid == getuid(), info->si_code < 0 && info->si_code != SI_TKILL ? info->si_value.sival_int : 0);
    count++;
}
static void install(int n, void (*f)(int), int flags) {
    struct sigaction action = {.sa_handler = f, .sa_flags = flags};
    sigaction(n, &action, 0);
}
static void block(int how, int n) {
    sigset_t set;
    sigemptyset(&set), sigaddset(&set, n);
    sigprocmask(how, &set, 0);
}
static sigset_t only(int n) { sigset_t set; sigemptyset(&set), sigaddset(&set, n); return set; }
static int queue(pid_t pid, int n, int code, int value) {
    siginfo_t info = {.si_signo = 1, .si_code = code, .si_errno = 5};
    info.si_pid = me, info.si_uid = getuid(), info.si_value.sival_int = value;
    return syscall(SYS_rt_sigqueueinfo, pid, n, &info);
}
static int thread_queue(pid_t pid, pid_t tid, int n, int code) {
    siginfo_t info = {.si_code = code};
    return syscall(SYS_rt_tgsigqueueinfo, pid, tid, n, &info);
}
static void later(int ms, pid_t pid, int n) {
    if (!fork()) { nap(ms); kill(pid, n); _exit(0); }
}
static void reap(void) { while (waitpid(-1, 0, 0) > 0 || errno == EINTR) {} }

static void answers(void) {
    puts("-- answers");
    SAY(kill(me, -1)); SAY(kill(me, 65)); SAY(kill(me, 64 + 0x100)); SAY(kill(0x7fffffff, 0)); SAY(kill(-0x7fffffff, 0));
    SAY(kill((int)0x80000000, 0)); SAY(kill(0x7fffffff, 99)); SAY(kill(me, 0)); SAY(kill(0, 0));
    SAY(syscall(SYS_tkill, 0, 0)); SAY(syscall(SYS_tkill, -5, 0)); SAY(syscall(SYS_tkill, me, 0)); SAY(syscall(SYS_tkill, me, 70));
    SAY(syscall(SYS_tgkill, 0, me, 0)); SAY(syscall(SYS_tgkill, me, 0, 0)); SAY(syscall(SYS_tgkill, 0x7ffffff, me, 0));
    SAY(syscall(SYS_tgkill, me, me, 0));
    SAY(queue(me, 0, SI_QUEUE, 0)); SAY(queue(me, 65, SI_QUEUE, 0)); SAY(queue(0x7fffffff, 0, SI_QUEUE, 0));
    SAY(queue(getppid(), 0, SI_USER, 0)); SAY(queue(getppid(), 0, SI_TKILL, 0)); SAY(queue(getppid(), 0, SI_KERNEL, 0));
    SAY(syscall(SYS_rt_sigqueueinfo, me, 0, 8L)); SAY(thread_queue(me, 0, 0, SI_QUEUE)); SAY(thread_queue(0, me, 0, SI_QUEUE));
    SAY(thread_queue(me, me, 0, SI_QUEUE)); SAY(thread_queue(me, 0x7ffffff, 0, SI_QUEUE));
    sigset_t set, old;
    sigfillset(&set);
    SAY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 0, &old, 8)); SAY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, 0, 16));
    SAY(syscall(SYS_rt_sigprocmask, 7, &set, 0, 8)); SAY(syscall(SYS_rt_sigprocmask, 7, 0, &old, 8));
    SAY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 8L, 0, 8)); SAY(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &set, &old, 8));
    SAY(syscall(SYS_rt_sigprocmask, SIG_SETMASK, 0, &set, 8));
    printf("the kernel's mask %lx\n", set.__val[0]);
    sigprocmask(SIG_SETMASK, &old, 0);
    char action[64] = {0};
    SAY(syscall(SYS_rt_sigaction, 0, 0, 0, 8)); SAY(syscall(SYS_rt_sigaction, 65, 0, 0, 8)); SAY(syscall(SYS_rt_sigaction, 10, 0, 0, 4));
    SAY(syscall(SYS_rt_sigaction, SIGKILL, 0, action, 8)); SAY(syscall(SYS_rt_sigaction, SIGSTOP, action, 0, 8));
    SAY(syscall(SYS_rt_sigaction, 10, 8L, 0, 8)); SAY(syscall(SYS_rt_sigaction, 10, 0, 8L, 8));
    unsigned long odd[4] = {1, ~0UL, 0x1234, ~0UL}, back[4];
    SAY(syscall(SYS_rt_sigaction, 44, odd, 0, 8)); SAY(syscall(SYS_rt_sigaction, 44, 0, back, 8));
    printf("kept: %lx %lx %lx %lx\n", back[0], back[1], back[2], back[3]);
    odd[0] = odd[1] = odd[3] = 0;
    syscall(SYS_rt_sigaction, 44, odd, 0, 8);
    SAY(syscall(SYS_rt_sigpending, &set, 9)); SAY(syscall(SYS_rt_sigpending, &set, 4)); SAY(syscall(SYS_rt_sigpending, 8L, 8));
    SAY(syscall(SYS_rt_sigsuspend, &set, 4)); SAY(syscall(SYS_rt_sigsuspend, 8L, 8));
    SAY(syscall(SYS_rt_sigtimedwait, &set, 0, 0, 4)); SAY(syscall(SYS_rt_sigtimedwait, 8L, 0, 0, 8));
    SAY(syscall(SYS_rt_sigtimedwait, &set, 0, &(struct timespec){0, 1000000000}, 8));
    SAY(syscall(SYS_rt_sigtimedwait, &set, 0, &(struct timespec){-1, 0}, 8)); SAY(syscall(SYS_rt_sigtimedwait, &set, 0, 8L, 8));
    SAY(syscall(SYS_sigaltstack, 8L, 0)); SAY(syscall(SYS_sigaltstack, 0, 8L)); SAY(syscall(SYS_restart_syscall));
}

static void details(void) {
    puts("-- details");
    struct sigaction action = {.sa_sigaction = tell, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, 0), sigaction(40, &action, 0), sigaction(SIGCHLD, &action, 0);
    SAY(kill(me, SIGUSR1)); SAY(raise(SIGUSR1)); SAY(queue(me, SIGUSR1, SI_QUEUE, 77)); SAY(queue(me, 40, SI_MESGQ, 78));
    SAY(queue(me, SIGUSR1, SI_USER, 79)); SAY(queue(me, SIGUSR1, 5, 80)); SAY(thread_queue(me, me, 40, -60));
    pid_t child = fork();
    if (!child) _exit(3);
    nap(100);
    siginfo_t info;
    SAY(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
    printf("waitid: %d %d %d %d\n", info.si_signo, info.si_code, info.si_status, info.si_pid == child);
    reap();
    install(SIGCHLD, SIG_DFL, 0), install(40, SIG_DFL, 0);
}

static void queues(void) {
    puts("-- queues");
    sigset_t set;
    sigemptyset(&set);
    for (int n = 1; n <= 64; n++) if (n != 32 && n != 33) sigaddset(&set, n);
    sigprocmask(SIG_BLOCK, &set, 0);
    int order[] = {64, 10, 40, 34, 12, 11, 40, 1, 10, 8, 50, 34};
    for (unsigned i = 0; i < sizeof order / sizeof *order; i++) queue(me, order[i], SI_QUEUE, i);
    raise(45), raise(10), raise(2); /* the thread's own come first */
    siginfo_t info;
    struct timespec none = {0, 0};
    int n;
    while ((n = sigtimedwait(&set, &info, &none)) > 0) printf("  took %d code %d value %d\n", n, info.si_code, info.si_value.sival_int);
    printf("  then %s\n", strerrorname_np(errno));
    struct rlimit limit = {0, 0}, old;
    getrlimit(RLIMIT_SIGPENDING, &old);
    limit.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_SIGPENDING, &limit);
    for (int i = 0; i < 2; i++) SAY(queue(me, 40, SI_QUEUE, i));
    SAY(kill(me, 41));
    SAY(queue(me, SIGUSR1, SI_QUEUE, 9));
    while ((n = sigtimedwait(&set, &info, &none)) > 0) printf("  took %d code %d value %d\n", n, info.si_code, info.si_value.sival_int);
    setrlimit(RLIMIT_SIGPENDING, &old);
    install(SIGUSR2, SIG_IGN, 0);
    kill(me, SIGUSR2), kill(me, SIGCHLD), kill(me, SIGWINCH), kill(me, SIGCONT);
    sigpending(&set);
    printf("ignored but blocked: %lx\n", set.__val[0]);
    install(SIGCHLD, SIG_IGN, 0), install(SIGUSR2, SIG_IGN, 0), install(SIGCONT, SIG_DFL, 0);
    sigpending(&set);
    printf("after ignoring again: %lx\n", set.__val[0]);
    kill(me, SIGTSTP), kill(me, SIGCONT);
    sigpending(&set);
    printf("SIGCONT took SIGTSTP away: %lx\n", set.__val[0]);
    kill(me, SIGTSTP);
    sigpending(&set);
    printf("and the other way: %lx\n", set.__val[0]);
    kill(me, SIGCONT);
    install(SIGCHLD, SIG_DFL, 0), install(SIGUSR2, SIG_DFL, 0);
    sigemptyset(&set);
    sigprocmask(SIG_SETMASK, &set, 0);
}

static void show_mask(int n) {
    sigset_t now;
    sigprocmask(SIG_BLOCK, 0, &now);
    printf("  handler of %d under %lx\n", n, now.__val[0]);
}

static void waits(void) {
    puts("-- waits");
    install(SIGUSR1, show_mask, 0);
    block(SIG_BLOCK, SIGUSR1), block(SIG_BLOCK, SIGUSR2);
    sigset_t hole = only(SIGTERM), now;
    kill(me, SIGUSR1);
    SAY(sigsuspend(&hole));
    sigprocmask(SIG_BLOCK, 0, &now);
    printf("mask after sigsuspend %lx\n", now.__val[0]);
    later(50, me, SIGUSR1);
    SAY(ppoll(0, 0, &(struct timespec){5, 0}, &hole));
    later(50, me, SIGUSR1);
    SAY(pselect(0, 0, 0, 0, &(struct timespec){5, 0}, &hole));
    int e = epoll_create1(0);
    struct epoll_event event;
    later(50, me, SIGUSR1);
    SAY(epoll_pwait(e, &event, 1, 5000, &hole));
    kill(me, SIGUSR1);
    SAY(ppoll(0, 0, &(struct timespec){0, 0}, &hole));
    sigset_t left;
    sigpending(&left);
    printf("pending %lx\n", left.__val[0]);
    SAY(ppoll(0, 0, &(struct timespec){0, 20000000}, &hole));
    sigprocmask(SIG_BLOCK, 0, &now);
    printf("mask after the polls %lx\n", now.__val[0]);
    siginfo_t info;
    later(50, me, SIGUSR2);
    sigset_t second = only(SIGUSR2);
    SAY(sigwaitinfo(&second, &info));
    later(50, me, SIGUSR1);
    sigset_t unblocked = only(SIGUSR2);
    block(SIG_UNBLOCK, SIGUSR1);
    SAY(sigtimedwait(&unblocked, &info, &(struct timespec){5, 0})); /* another one: EINTR */
    block(SIG_BLOCK, SIGTERM); /* fatal, but blocked and waited for */
    sigset_t killed = only(SIGTERM);
    later(50, me, SIGTERM);
    SAY(sigtimedwait(&killed, &info, &(struct timespec){5, 0}));
    long begun = milliseconds();
    SAY(sigtimedwait(&killed, &info, &(struct timespec){0, 50000000}));
    printf("waited its time %d\n", milliseconds() - begun >= 50);
    block(SIG_UNBLOCK, SIGUSR2), block(SIG_UNBLOCK, SIGTERM);
    reap();
}

static void readable(void) {
    puts("-- signalfd");
    sigset_t set = only(SIGUSR1);
    sigaddset(&set, 40), sigaddset(&set, SIGCHLD), sigaddset(&set, SIGKILL);
    sigprocmask(SIG_BLOCK, &set, 0);
    SAY(signalfd(99, &set, 0)); SAY(signalfd(0, &set, 0)); SAY(signalfd(-1, &set, 1)); SAY(syscall(SYS_signalfd4, -1, &set, 4, 0));
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    struct signalfd_siginfo got[4];
    struct pollfd p = {fd, POLLIN, 0};
    SAY(poll(&p, 1, 0)); SAY(read(fd, got, sizeof got)); SAY(write(fd, got, 128)); SAY(read(fd, got, 127)); SAY(fcntl(fd, F_GETFD));
    sigqueue(me, 40, (union sigval){.sival_int = 5}), sigqueue(me, 40, (union sigval){.sival_int = 6}), kill(me, SIGUSR1);
    SAY(poll(&p, 1, 0));
    SAY(read(fd, got, sizeof got));
    for (int i = 0; i < 3; i++) printf("  %u code %d me %d value %d\n", got[i].ssi_signo, got[i].ssi_code, (pid_t)got[i].ssi_pid == me, got[i].ssi_int);
    SAY(poll(&p, 1, 0));
    pid_t child = fork();
    if (!child) _exit(4);
    SAY(poll(&p, 1, 3000));
    SAY(read(fd, got, sizeof got));
    printf("  %u code %d child %d status %d\n", got[0].ssi_signo, got[0].ssi_code, (pid_t)got[0].ssi_pid == child, got[0].ssi_status);
    waitpid(child, 0, 0);
    sigset_t other = only(SIGUSR2);
    block(SIG_BLOCK, SIGUSR2);
    kill(me, SIGUSR2);
    SAY(poll(&p, 1, 0));
    SAY(signalfd(fd, &other, 0) == fd);
    SAY(poll(&p, 1, 0));
    sigwaitinfo(&other, 0);
    SAY(poll(&p, 1, 0));
    int waiting = signalfd(-1, &other, 0);
    later(50, me, SIGUSR2);
    SAY(read(waiting, got, 128));
    sigprocmask(SIG_UNBLOCK, &set, 0), block(SIG_UNBLOCK, SIGUSR2);
    reap();
    close(fd), close(waiting);
}

/* ---- threads ---------------------------------------------------------------------------------------------------- */

static pthread_barrier_t gate;
static volatile int stop_now;
static _Thread_local int mark;
static volatile int taken_by;
static void mine(int n) { (void)n; taken_by = mark, count++; }

static void *blocker(void *number) {
    mark = (long)number;
    block(SIG_BLOCK, SIGUSR1);
    pthread_barrier_wait(&gate);
    while (!stop_now) nap(5);
    return 0;
}
static void *willing(void *number) {
    mark = (long)number;
    pthread_barrier_wait(&gate);
    while (!stop_now) nap(5);
    return 0;
}
static void *waiter(void *unused) {
    (void)unused;
    sigset_t set = only(SIGUSR1);
    siginfo_t info;
    block(SIG_BLOCK, SIGUSR1);
    pthread_barrier_wait(&gate);
    return (void *)(long)sigwaitinfo(&set, &info);
}
static void *cancelled(void *unused) { (void)unused; pthread_barrier_wait(&gate); for (;;) pause(); return 0; }

static void threads(void) {
    puts("-- threads");
    pthread_t a, b, c;
    void *result;
    install(SIGUSR1, mine, SA_RESTART);
    pthread_barrier_init(&gate, 0, 3);
    pthread_create(&a, 0, blocker, (void *)1L), pthread_create(&b, 0, willing, (void *)2L);
    block(SIG_BLOCK, SIGUSR1);
    pthread_barrier_wait(&gate);
    count = 0;
    kill(me, SIGUSR1);
    while (!count) nap(1);
    printf("the willing thread took it: %d\n", taken_by);
    SAY(pthread_kill(a, SIGUSR1));
    nap(30);
    printf("one for a thread that blocks it waits: %d\n", count);
    stop_now = 1;
    pthread_join(a, 0), pthread_join(b, 0);
    sigset_t pending;
    sigpending(&pending);
    printf("and ends with its thread: %lx\n", pending.__val[0]);
    pthread_barrier_destroy(&gate), pthread_barrier_init(&gate, 0, 2);
    pthread_create(&c, 0, waiter, 0);
    pthread_barrier_wait(&gate);
    nap(20);
    kill(me, SIGUSR1);
    pthread_join(c, &result);
    printf("sigwaitinfo in a thread: %ld\n", (long)result);
    block(SIG_UNBLOCK, SIGUSR1);
    pthread_create(&c, 0, cancelled, 0);
    pthread_barrier_wait(&gate);
    SAY(pthread_cancel(c));
    SAY(pthread_join(c, &result));
    printf("cancelled %d\n", result == PTHREAD_CANCELED);
}

static void *spin(void *unused) { (void)unused; for (;;) __asm__ volatile("pause"); return 0; }
static void *block_forever(void *fd) { char c; while (read((int)(long)fd, &c, 1)) {} return 0; }

static void ends(void) {
    puts("-- ends");
    int signals[] = {SIGTERM, SIGKILL, SIGSEGV, SIGABRT, 40, SIGALRM, SIGPWR};
    for (unsigned i = 0; i < 7; i++) {
        fflush(stdout);
        pid_t child = fork();
        if (!child) {
            pthread_t t;
            int p[2];
            pipe(p);
            pthread_create(&t, 0, spin, 0), pthread_create(&t, 0, block_forever, (void *)(long)p[0]);
            nap(10);
            if (i % 2) kill(getpid(), signals[i]); else pthread_kill(t, signals[i]);
            for (;;) pause();
        }
        int status;
        waitpid(child, &status, 0);
        printf("by %d: %s %d core %d\n", signals[i], WIFSIGNALED(status) ? "killed" : "exit", WTERMSIG(status), WCOREDUMP(status));
    }
    int flags[] = {0, SA_NOCLDWAIT, SA_NOCLDSTOP};
    for (int i = 0; i < 3; i++) {
        install(SIGCHLD, bump, flags[i]);
        count = 0;
        fflush(stdout);
        pid_t child = fork();
        if (!child) for (;;) pause();
        int status;
        kill(child, SIGSTOP);
        waitpid(child, &status, WUNTRACED);
        int stops = count;
        kill(child, SIGCONT);
        waitpid(child, &status, WCONTINUED);
        nap(20);
        int continues = count;
        kill(child, SIGKILL);
        pid_t got;
        while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR) {}
        nap(20);
        printf("flags %d: after the stop %d, continue %d, end %d, waited %s\n", flags[i], stops, continues, count, got < 0 ? strerrorname_np(errno) : "ok");
    }
    install(SIGCHLD, SIG_DFL, 0);
}

static void *tick(void *counter) { for (;;) { ++*(volatile long *)counter; nap(1); } return 0; }

static void stops(void) {
    puts("-- stops");
    volatile long *counters = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        pthread_t t;
        setpgid(0, 0); /* with a parent in another group it is not orphaned */
        pthread_create(&t, 0, tick, (void *)&counters[1]);
        tick((void *)&counters[0]);
    }
    int status;
    while (!counters[0] || !counters[1]) nap(1);
    int signals[] = {SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
    for (int i = 0; i < 4; i++) {
        kill(child, signals[i]);
        waitpid(child, &status, WUNTRACED);
        long first = counters[0], second = counters[1];
        nap(30);
        printf("stopped %d by %d, all threads %d\n", WIFSTOPPED(status), WSTOPSIG(status), first == counters[0] && second == counters[1]);
        siginfo_t info = {0};
        if (i == 1) kill(child, SIGWINCH);
        kill(child, SIGCONT);
        waitid(P_PID, child, &info, WCONTINUED);
        printf("continued: code %d status %d\n", info.si_code, info.si_status);
        nap(30);
        printf("goes on %d\n", first != counters[0] && second != counters[1]);
    }
    kill(child, SIGSTOP);
    waitpid(child, &status, WUNTRACED);
    kill(child, SIGTERM);
    nap(20);
    printf("a stopped process does not die of SIGTERM: %d\n", waitpid(child, &status, WNOHANG));
    kill(child, SIGCONT);
    waitpid(child, &status, 0);
    printf("until it goes on: %d\n", WTERMSIG(status));
    child = fork();
    if (!child) for (;;) pause();
    kill(child, SIGSTOP);
    waitpid(child, &status, WUNTRACED);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    printf("SIGKILL always works: %d\n", WTERMSIG(status));
    child = fork();
    if (!child) {
        setsid(); /* an orphaned group: no terminal stop */
        kill(getpid(), SIGTSTP);
        kill(getpid(), SIGTTIN);
        _exit(5);
    }
    waitpid(child, &status, WUNTRACED);
    printf("an orphaned group: exit %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

static void groups(void) {
    puts("-- groups");
    int status, p[2];
    char c;
    pipe(p);
    fflush(stdout);
    pid_t leader = fork();
    if (!leader) {
        setpgid(0, 0);
        for (int i = 0; i < 2; i++) if (!fork()) { write(p[1], "x", 1); for (;;) pause(); }
        write(p[1], "x", 1);
        for (;;) pause();
    }
    for (int i = 0; i < 3; i++) read(p[0], &c, 1);
    SAY(kill(-leader, 0)); SAY(killpg(leader, SIGTERM));
    waitpid(leader, &status, 0);
    printf("group killed by %d\n", WTERMSIG(status));
    close(p[1]);
    SAY(read(p[0], &c, 1)); /* every member is gone */
}

int main(void) {
    me = getpid();
    setvbuf(stdout, 0, _IOLBF, 0);
    install(SIGTERM, SIG_DFL, 0);
    setpgid(0, 0);
    answers(), details(), queues(), waits(), readable(), threads(), ends(), stops(), groups();
    return 0;
}
