/* Clocks, sleeps and timers: what they answer, that they are not early, and what signals do to them. */
#include "probe.h"
#include <linux/futex.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <poll.h>

static volatile sig_atomic_t alarms, last_code, last_value, most_overrun, last_tid;
static void on_alarm(int n) { (void)n; alarms++; }
static void on_info(int n, siginfo_t *i, void *u) {
    (void)n, (void)u;
    last_code = i->si_code, last_value = i->si_value.sival_int, last_tid = syscall(SYS_gettid);
    if (i->si_overrun > most_overrun) most_overrun = i->si_overrun;
    alarms++;
}
static void catch(int signo, int flags) {
    struct sigaction a = {0};
    if (flags & SA_SIGINFO) a.sa_sigaction = on_info; else a.sa_handler = on_alarm;
    a.sa_flags = flags;
    sigaction(signo, &a, 0);
}
static long since(long start) { return milliseconds() - start; }
static void burn(long cpu_ms) {
    struct timespec t;
    do clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); while (t.tv_sec * 1000 + t.tv_nsec / 1000000 < cpu_ms);
}
static long cpu_ms(clockid_t c) { struct timespec t; return clock_gettime(c, &t) ? -1 : t.tv_sec * 1000 + t.tv_nsec / 1000000; }
static void arm(int which, long value_us, long interval_us) {
    struct itimerval v = {{interval_us / 1000000, interval_us % 1000000}, {value_us / 1000000, value_us % 1000000}};
    if (setitimer(which, &v, 0)) perror("setitimer");
}

static void clocks(void) {
    struct timespec t, r;
    int ids[] = {0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 99, -1, -2, -3, -6};
    for (unsigned i = 0; i < sizeof ids / sizeof *ids; i++) {
        printf("clock %d: ", ids[i]);
        printf("%s", syscall(SYS_clock_gettime, ids[i], &t) ? strerrorname_np(errno) : "ok");
        if (syscall(SYS_clock_getres, ids[i], &r)) printf(" %s\n", strerrorname_np(errno));
        else printf(" %ld.%09ld\n", r.tv_sec, r.tv_nsec);
    }
    SAY(syscall(SYS_clock_getres, CLOCK_MONOTONIC, 0));
    SAY(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, 8));
    SAY(syscall(SYS_clock_settime, CLOCK_MONOTONIC, &t));
    SAY(syscall(SYS_clock_settime, CLOCK_REALTIME, &(struct timespec){0, -1}));
    clockid_t own;
    SAY(clock_getcpuclockid(getpid(), &own));
    printf("own clock runs %d\n", cpu_ms(own) >= 0);
    SAY(pthread_getcpuclockid(pthread_self(), &own));
    printf("thread's clock runs %d\n", cpu_ms(own) >= 0);
    struct timeval v;
    SAY(syscall(SYS_gettimeofday, &v, 0));
    long now = time(0);
    printf("agree %d %d\n", labs(v.tv_sec - now) <= 1, labs(syscall(SYS_time, 0) - now) <= 1);
    clock_gettime(CLOCK_MONOTONIC, &t);
    for (int i = 0; i < 2000; i++) {
        clock_gettime(CLOCK_MONOTONIC, &r);
        if (r.tv_sec < t.tv_sec || (r.tv_sec == t.tv_sec && r.tv_nsec < t.tv_nsec)) puts("time runs backwards");
        t = r;
    }
}
static void sleeps(void) {
    struct timespec left = {7, 7};
    long start = milliseconds();
    SAY(nanosleep(&(struct timespec){0, 30000000}, &left));
    printf("slept %d, left %ld %ld\n", since(start) >= 30, left.tv_sec, left.tv_nsec);
    SAY(syscall(SYS_nanosleep, &(struct timespec){-1, 0}, 0));
    SAY(syscall(SYS_nanosleep, &(struct timespec){0, 1000000000}, 0));
    SAY(syscall(SYS_nanosleep, 8, 0));
    SAY(syscall(SYS_nanosleep, &(struct timespec){0, 0}, 8));
    for (int c = 0; c < 13; c++) if (c != 8 && c != 9) printf("sleep on %d: %d\n", c, clock_nanosleep(c, 0, &(struct timespec){0, 0}, 0));
    SAY(syscall(SYS_clock_nanosleep, 99, 0, &left, 0));
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += 20000000;
    if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
    start = milliseconds();
    SAY(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t, 0));
    printf("slept until %d\n", since(start) >= 18);
    SAY(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &(struct timespec){0, 1}, 0));

    catch(SIGALRM, 0);
    alarms = 0, start = milliseconds();
    arm(ITIMER_REAL, 30000, 0);
    SAY(nanosleep(&(struct timespec){5, 0}, &left));
    printf("interrupted in time %d, left %d, alarms %d\n", since(start) >= 29 && since(start) < 4000, left.tv_sec == 4, alarms);
    catch(SIGALRM, SA_RESTART);
    arm(ITIMER_REAL, 30000, 0);
    SAY(nanosleep(&(struct timespec){5, 0}, &left));
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += 5;
    arm(ITIMER_REAL, 30000, 0);
    SAY(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0));
    signal(SIGUSR1, SIG_IGN);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        start = milliseconds();
        SAY(nanosleep(&(struct timespec){0, 200000000}, &left));
        printf("a stop does not end a sleep %d\n", since(start) >= 200);
        fflush(stdout);
        _exit(0);
    }
    nap(30), kill(child, SIGUSR1), kill(child, SIGSTOP), nap(60), kill(child, SIGCONT);
    waitpid(child, 0, 0);
    int word = 0;
    catch(SIGALRM, SA_RESTART);
    arm(ITIMER_REAL, 20000, 0);
    start = milliseconds();
    SAY(syscall(SYS_futex, &word, FUTEX_WAIT, 0, &(struct timespec){0, 100000000}));
    printf("after %d\n", since(start) < 90);
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += 1;
    arm(ITIMER_REAL, 20000, 0);
    SAY(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, &t, 0, 1));
}
static void interval_timers(void) {
    struct itimerval v = {{1, 2}, {3, 4}}, old;
    catch(SIGALRM, SA_RESTART), catch(SIGVTALRM, SA_RESTART), catch(SIGPROF, SA_RESTART);
    SAY(setitimer(ITIMER_REAL, &v, 0));
    SAY(getitimer(ITIMER_REAL, &old));
    printf("%ld %ld %ld\n", old.it_interval.tv_sec, old.it_interval.tv_usec, old.it_value.tv_sec);
    SAY(alarm(10));
    SAY(alarm(0));
    SAY(alarm(0));
    SAY(syscall(SYS_getitimer, 3, &old));
    SAY(syscall(SYS_setitimer, -1, &v, 0));
    SAY(syscall(SYS_getitimer, 0, 0));
    v.it_value.tv_usec = 1000000;
    SAY(setitimer(ITIMER_REAL, &v, 0));
    alarms = 0;
    arm(ITIMER_REAL, 10000, 10000);
    long start = milliseconds();
    while (alarms < 5) pause();
    printf("five in time %d\n", since(start) >= 49 && since(start) < 5000);
    arm(ITIMER_REAL, 0, 0);
    nap(30);
    int before = alarms;
    nap(30);
    printf("disarmed %d\n", before == alarms);
    alarms = 0;
    long cpu = cpu_ms(CLOCK_PROCESS_CPUTIME_ID);
    arm(ITIMER_PROF, 20000, 20000);
    while (alarms < 3) {}
    long used = cpu_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    /* Linux counts whole ticks of its clock: beside other load three expire after 45 ms and more */
    printf("profiled %d\n", used >= 30 && used < 500);
    arm(ITIMER_PROF, 0, 0);
    alarms = 0;
    arm(ITIMER_VIRTUAL, 20000, 0);
    while (alarms < 1) {}
    SAY(getitimer(ITIMER_VIRTUAL, &old));
    printf("virtual over: %ld %ld\n", old.it_value.tv_sec, old.it_value.tv_usec);
    arm(ITIMER_REAL, 50000000, 0);
    fflush(stdout);
    if (!fork()) { SAY(alarm(0)); _exit(0); }
    wait(0);
    printf("kept by the parent %d\n", alarm(0) > 0);
}
static void *be_target(void *p) { *(volatile int *)p = syscall(SYS_gettid); while (*(volatile int *)p) nap(1); return 0; }
static void posix_timers(void) {
    timer_t t, u;
    struct itimerspec v = {{0, 0}, {0, 300000000}}, old;
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 77};
    int ids[] = {0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12};
    for (unsigned i = 0; i < sizeof ids / sizeof *ids; i++) {
        int id = -1;
        e.sigev_notify = SIGEV_NONE;
        printf("timer on %d: %s\n", ids[i], syscall(SYS_timer_create, ids[i], &e, &id) ? strerrorname_np(errno) : "ok");
        if (id >= 0) syscall(SYS_timer_delete, id);
    }
    e.sigev_notify = 17;
    SAY(syscall(SYS_timer_create, 1, &e, &t));
    e.sigev_notify = SIGEV_SIGNAL, e.sigev_signo = 65;
    SAY(syscall(SYS_timer_create, 1, &e, &t));
    e.sigev_signo = 0;
    SAY(syscall(SYS_timer_create, 1, &e, &t));
    e.sigev_notify = SIGEV_THREAD_ID, e.sigev_signo = SIGRTMIN, e._sigev_un._tid = 1;
    SAY(syscall(SYS_timer_create, 1, &e, &t));
    SAY(syscall(SYS_timer_settime, 12345, 0, &v, 0));
    SAY(syscall(SYS_timer_delete, 12345));
    e.sigev_notify = SIGEV_SIGNAL;
    catch(SIGRTMIN, SA_SIGINFO | SA_RESTART);
    alarms = 0;
    SAY(timer_create(CLOCK_MONOTONIC, &e, &t));
    SAY(timer_settime(t, 0, &v, 0));
    SAY(timer_gettime(t, &old));
    printf("armed %d\n", old.it_value.tv_nsec > 0 && old.it_value.tv_nsec <= 300000000);
    while (!alarms) pause();
    printf("code %d value %d overrun %d\n", last_code == SI_TIMER, last_value, most_overrun);
    SAY(timer_gettime(t, &old));
    printf("over: %ld %ld\n", old.it_value.tv_sec, old.it_value.tv_nsec);
    sigset_t s;
    sigemptyset(&s), sigaddset(&s, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &s, 0);
    v.it_interval.tv_nsec = 5000000, v.it_value.tv_nsec = 5000000, alarms = 0;
    SAY(timer_settime(t, 0, &v, 0));
    nap(103);
    sigprocmask(SIG_UNBLOCK, &s, 0);
    printf("missed several %d, said alike %d\n", most_overrun >= 15, timer_getoverrun(t) >= 15 || alarms > 0);
    nap(20);
    printf("goes on %d\n", alarms > 1);
    v.it_value.tv_nsec = 0;
    SAY(timer_settime(t, 0, &v, &old));
    printf("period was %ld\n", old.it_interval.tv_nsec);
    SAY(timer_delete(t));
    SAY(timer_delete(t));
    pthread_t thread;
    static volatile int tid;
    pthread_create(&thread, 0, be_target, (void *)&tid);
    while (!tid) nap(1);
    e.sigev_notify = SIGEV_THREAD_ID, e._sigev_un._tid = tid;
    v.it_value.tv_nsec = 5000000, v.it_interval.tv_nsec = 0, alarms = 0, last_tid = 0;
    SAY(timer_create(CLOCK_BOOTTIME, &e, &u));
    SAY(timer_settime(u, 0, &v, 0));
    while (!alarms) nap(2);
    printf("to the right thread %d\n", last_tid == tid);
    tid = 0;
    pthread_join(thread, 0);
    SAY(timer_settime(u, 0, &v, 0));
    nap(20);
    SAY(timer_delete(u));
    e.sigev_notify = SIGEV_NONE;
    SAY(timer_create(CLOCK_MONOTONIC, &e, &u));
    v.it_interval.tv_nsec = 1000000;
    SAY(timer_settime(u, 0, &v, 0));
    nap(20);
    SAY(timer_gettime(u, &old));
    printf("counts down silently %d\n", old.it_value.tv_nsec > 0 && old.it_value.tv_nsec <= 1000000);
    e.sigev_notify = SIGEV_SIGNAL, alarms = 0;
    SAY(timer_create(CLOCK_PROCESS_CPUTIME_ID, &e, &t));
    v.it_value.tv_nsec = 20000000, v.it_interval.tv_nsec = 0;
    long cpu = cpu_ms(CLOCK_PROCESS_CPUTIME_ID);
    SAY(timer_settime(t, 0, &v, 0));
    while (!alarms) {}
    long used = cpu_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("after its time %d\n", used >= 19 && used < 300);
    clock_gettime(CLOCK_REALTIME, &v.it_value);
    alarms = 0;
    SAY(timer_create(CLOCK_REALTIME, 0, &u));
    catch(SIGALRM, SA_SIGINFO);
    SAY(timer_settime(u, TIMER_ABSTIME, &v, 0));
    nap(20);
    printf("past at once %d\n", alarms);
    fflush(stdout);
    if (!fork()) { SAY(timer_gettime(t, &old)); _exit(0); }
    wait(0);
}
static void timer_files(void) {
    uint64_t n = 0;
    struct itimerspec v = {{0, 10000000}, {0, 20000000}}, old;
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    SAY(fcntl(fd, F_GETFL) & O_NONBLOCK);
    SAY(fcntl(fd, F_GETFD));
    SAY(read(fd, &n, 8));
    SAY(timerfd_settime(fd, 0, &v, 0));
    SAY(timerfd_gettime(fd, &old));
    printf("period %ld, armed %d\n", old.it_interval.tv_nsec, old.it_value.tv_nsec > 0);
    SAY(poll(&(struct pollfd){fd, POLLIN, 0}, 1, 1000));
    nap(35);
    SAY(read(fd, &n, 8));
    printf("several %d\n", n >= 3);
    SAY(read(fd, &n, 7));
    SAY(write(fd, &n, 8));
    SAY(lseek(fd, 0, SEEK_SET));
    SAY(fcntl(fd, F_SETFL, 0));
    SAY(read(fd, &n, 8));
    v.it_value.tv_nsec = 1000000000;
    SAY(timerfd_settime(fd, 0, &v, 0));
    SAY(timerfd_settime(0, 0, &v, 0));
    SAY(timerfd_settime(99, 0, &old, 0));
    SAY(timerfd_create(99, 0));
    SAY(timerfd_create(CLOCK_MONOTONIC, 1));
    SAY(timerfd_create(CLOCK_THREAD_CPUTIME_ID, 0));
    catch(SIGALRM, 0);
    v.it_value.tv_sec = 5, v.it_value.tv_nsec = 0;
    SAY(timerfd_settime(fd, 0, &v, 0));
    arm(ITIMER_REAL, 20000, 0);
    SAY(read(fd, &n, 8));
    close(fd);
}
static void *spin(void *p) { burn((long)p); return 0; }
static void usage(void) {
    struct rusage r;
    struct tms t;
    pthread_t thread;
    pthread_create(&thread, 0, spin, (void *)(cpu_ms(CLOCK_PROCESS_CPUTIME_ID) + 50));
    pthread_join(thread, 0);
    printf("a thread's time is its own %d\n", cpu_ms(CLOCK_THREAD_CPUTIME_ID) < cpu_ms(CLOCK_PROCESS_CPUTIME_ID));
    SAY(getrusage(RUSAGE_SELF, &r));
    printf("used %d, peak %d\n", r.ru_utime.tv_sec * 1000 + r.ru_utime.tv_usec / 1000 + r.ru_stime.tv_sec * 1000 + r.ru_stime.tv_usec / 1000 >= 40, r.ru_maxrss > 100);
    SAY(getrusage(RUSAGE_CHILDREN, &r));
    SAY(getrusage(RUSAGE_THREAD, &r));
    SAY(syscall(SYS_getrusage, 5, &r));
    SAY(syscall(SYS_getrusage, 0, 8));
    fflush(stdout);
    pid_t child = fork();
    if (!child) { burn(150); _exit(3); }
    int status;
    SAY(wait4(child, &status, 0, &r) == child);
    printf("child used %d\n", r.ru_utime.tv_sec * 1000 + r.ru_utime.tv_usec / 1000 + r.ru_stime.tv_usec / 1000 >= 100);
    SAY(getrusage(RUSAGE_CHILDREN, &r));
    printf("children used %d\n", r.ru_utime.tv_sec * 1000 + r.ru_utime.tv_usec / 1000 + r.ru_stime.tv_usec / 1000 >= 100);
    long ticks = times(&t);
    printf("ticks %d, children %d\n", ticks > 0, t.tms_cutime + t.tms_cstime >= 9);
    fflush(stdout);
    if (!fork()) {
        setrlimit(RLIMIT_CPU, &(struct rlimit){1, 2});
        catch(SIGXCPU, 0);
        alarms = 0;
        while (!alarms) {}
        printf("SIGXCPU after its time %d\n", cpu_ms(CLOCK_PROCESS_CPUTIME_ID) >= 300); /* Linux counts ticks */
        fflush(stdout);
        for (;;) {}
    }
    wait(&status);
    printf("killed by %d\n", WTERMSIG(status));
}
int main(int count, char **arguments) {
    struct { const char *name; void (*run)(void); } parts[] = {{"clocks", clocks}, {"sleeps", sleeps}, {"interval", interval_timers}, {"posix", posix_timers}, {"files", timer_files}, {"usage", usage}};
    for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++)
        if (count == 2 && !strcmp(arguments[1], parts[i].name)) parts[i].run();
    return 0;
}
