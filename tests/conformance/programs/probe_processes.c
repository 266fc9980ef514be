/* fork, vfork, clone, execve, wait, process groups and sessions, orphans, limits, identity, time. */
#include "probe.h"
#include <linux/sched.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <sys/utsname.h>

static char stack[65536];
static int shared;
static int child_main(void *p) { shared = 7; *(int *)p = 8; return 5; }

static int child(int (*act)(void)) {
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) _exit(act());
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}
static int leader(void) { return (setsid() == getpid()) + 2 * (getpgrp() == getpid()) + 4 * (getsid(0) == getpid()) + 8 * (setsid() == -1); }
static int group(void) { return (setpgid(0, 0) == 0) + 2 * (getpgrp() == getpid()); }
static int many_files(void) { setrlimit(RLIMIT_NOFILE, &(struct rlimit){20, 20}); int n = 0; while (dup(1) >= 0) n++; return errno == EMFILE ? n : 99; }
static int file_size(void) { setrlimit(RLIMIT_FSIZE, &(struct rlimit){1000, 1000}); int f = open("limited", O_CREAT | O_RDWR, 0600); char b[2000] = {0}; int n = write(f, b, 2000); write(f, b, 1); return n / 10; }
static volatile int forever = 1;
static int cpu_time(void) { setrlimit(RLIMIT_CPU, &(struct rlimit){1, 2}); while (forever) {} return 0; }
static int dead_parent(void) {
    int p[2], q[2];
    char c;
    pipe(p), pipe(q);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t middle = fork();
    if (!middle) {
        if (!fork()) { read(q[0], &c, 1); c = getppid() != middle; write(p[1], &c, 1); _exit(9); }
        _exit(0);
    }
    waitpid(middle, 0, 0);
    write(q[1], "x", 1);
    read(p[0], &c, 1);
    int status;
    wait(&status);
    return WEXITSTATUS(status) * 10 + 1;
}
static int deathsig(void) {
    int p[2];
    char c;
    pipe(p);
    if (!fork()) {
        if (!fork()) { close(p[0]); prctl(PR_SET_PDEATHSIG, SIGKILL); write(p[1], "r", 1); while (forever) pause(); return 0; }
        read(p[0], &c, 1);
        _exit(0);
    }
    close(p[1]);
    wait(0);
    nap(10);
    int n = read(p[0], &c, 1);
    return 40 + n;
}
static void *exec_thread(void *p) { (void)p; execl("/bin/echo", "echo", "executed from a thread", NULL); return 0; }
static int exec_from_thread(void) { pthread_t t; pthread_create(&t, 0, exec_thread, 0); while (forever) pause(); return 0; }
static void *exit_thread(void *p) { (void)p; nap(30); syscall(SYS_exit_group, 21); return 0; }
static int exit_from_thread(void) { pthread_t t; pthread_create(&t, 0, exit_thread, 0); while (forever) pause(); return 0; }
static void *last_thread(void *p) { (void)p; nap(60); syscall(SYS_exit, 22); return 0; }
static int leader_first(void) { pthread_t t; pthread_create(&t, 0, last_thread, 0); syscall(SYS_exit, 23); return 0; }
static void *fork_thread(void *p) { *(pid_t *)p = fork(); if (!*(pid_t *)p) _exit(getpid() == syscall(SYS_gettid) ? 31 : 32); return 0; }
static int fork_from_thread(void) { pthread_t t; pid_t pid; int status; pthread_create(&t, 0, fork_thread, &pid); pthread_join(t, 0); waitpid(pid, &status, 0); return WEXITSTATUS(status); }
static int ran_at_exit(void) { return system("exit 12") >> 8; }
static int abort_now(void) { setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); abort(); }

int main(int argc, char **argv) {
    int status, value = 0;
    siginfo_t info;
    struct rusage usage;
    if (argc > 1) {
        printf("again as %s with %d arguments, X=%s, fd 10 %s, fd 11 %s\n", argv[0], argc, getenv("X") ? getenv("X") : "",
               fcntl(10, F_GETFD) < 0 ? "closed" : "open", fcntl(11, F_GETFD) < 0 ? "closed" : "open");
        return 17;
    }
    SAY(wait(&status));
    SAY(waitpid(999999, 0, 0));
    SAY(waitpid(-1, 0, 0xff000));
    pid_t pid = fork();
    if (!pid) _exit(300);
    SAY(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
    printf("waitid: signal %d code %d status %d pid %d\n", info.si_signo, info.si_code, info.si_status, info.si_pid == pid);
    SAY(wait4(pid, &status, WNOHANG, &usage) == pid);
    printf("status %d\n", WEXITSTATUS(status));
    pid = fork();
    if (!pid) for (;;) pause();
    SAY(waitpid(pid, &status, WNOHANG));
    SAY(setpgid(pid, pid));
    SAY(waitpid(0, &status, WNOHANG));
    SAY(waitpid(-pid, &status, WNOHANG));
    SAY(getpgid(pid) == pid);
    SAY(kill(-pid, SIGKILL));
    SAY(waitpid(-pid, &status, 0) == pid);
    printf("signalled %d by %d\n", WIFSIGNALED(status), WTERMSIG(status));
    pid = vfork();
    if (!pid) { shared = 3; _exit(4); }
    waitpid(pid, &status, 0);
    printf("vfork shares memory %d, status %d\n", shared, WEXITSTATUS(status));
    pid = clone(child_main, stack + sizeof stack, CLONE_VM | CLONE_FILES | SIGCHLD, &value);
    waitpid(pid, &status, 0);
    printf("clone with CLONE_VM: %d %d, status %d\n", shared, value, WEXITSTATUS(status));
    shared = value = 0;
    pid = clone(child_main, stack + sizeof stack, SIGCHLD, &value);
    waitpid(pid, &status, 0);
    printf("clone without: %d %d, status %d\n", shared, value, WEXITSTATUS(status));
    pid = clone(child_main, stack + sizeof stack, CLONE_VM | CLONE_VFORK, &value);
    SAY(waitpid(pid, &status, 0));
    SAY(waitpid(pid, &status, __WALL) == pid);
    SAY(syscall(SYS_clone, CLONE_THREAD | SIGCHLD, 0, 0, 0, 0));
    SAY(syscall(SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0));
    int pidfd = -1;
    struct clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD};
    pid = syscall(SYS_clone3, &args, sizeof args);
    if (!pid) _exit(6);
    if (pid > 0) waitpid(pid, &status, 0), printf("clone3: status %d, pidfd %d\n", WEXITSTATUS(status), pidfd > 2);
    SAY(syscall(SYS_clone3, &args, 8));

    printf("session leader %d, group leader %d\n", child(leader), child(group));
    printf("EMFILE after %d, file size %d, cpu time %d\n", child(many_files), child(file_size), child(cpu_time));
    printf("reparented %d, parent death signal %d\n", child(dead_parent), child(deathsig));
    printf("execve from a thread %d, exit_group from a thread %d, leader first %d\n", child(exec_from_thread), child(exit_from_thread), child(leader_first));
    printf("fork from a thread %d, system %d, abort %d\n", child(fork_from_thread), child(ran_at_exit), child(abort_now));

    SAY(execl("/no/such", "x", NULL));
    SAY(execl("/etc/passwd", "x", NULL));
    SAY(execl("/", "x", NULL));
    close(open("empty", O_CREAT | O_WRONLY, 0755));
    SAY(execl("./empty", "x", NULL));
    int script = open("script", O_CREAT | O_WRONLY, 0755);
    write(script, "#!/no/such/interpreter\n", 23);
    SAY(execl("./script", "x", NULL) + 0);
    close(script);
    SAY(execl("./script", "x", NULL));
    char *huge = malloc(200 << 10);
    memset(huge, 'x', 200 << 10);
    huge[(200 << 10) - 1] = 0;
    SAY(execl("/bin/true", huge, NULL));
    SAY(getpriority(PRIO_PROCESS, 0));
    SAY(nice(3));
    SAY(getpriority(PRIO_PROCESS, 0));
    SAY(sched_getscheduler(0));
    SAY(sched_get_priority_max(SCHED_FIFO));
    SAY(sched_yield());
    struct utsname u;
    SAY(uname(&u));
    printf("%s %s\n", u.sysname, u.machine);
    struct sysinfo si;
    SAY(sysinfo(&si));
    printf("memory %d, processes %d\n", si.totalram > si.freeram, si.procs > 0);
    char name[17] = {0};
    SAY(prctl(PR_SET_NAME, "a name that is too long"));
    SAY(prctl(PR_GET_NAME, name));
    printf("%s\n", name);
    SAY(prctl(PR_GET_DUMPABLE));
    SAY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    SAY(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    SAY(prctl(12345));
    SAY(getrandom(huge, 100, 0));
    SAY(getrandom(huge, 100, 99));
    SAY(umask(027) == 022);
    SAY(umask(077));
    SAY(getuid() == geteuid());
    SAY(syscall(SYS_getppid) > 0);
    SAY(setgid(getgid()));
    SAY(setuid(getuid()));
    SAY(syscall(SYS_arch_prctl, 0x1003 /* ARCH_GET_FS */, &u));
    SAY(syscall(SYS_arch_prctl, 0x9999, &u));
    SAY(syscall(SYS_set_tid_address, &value) == getpid());
    SAY(syscall(9999));
    SAY(syscall(SYS_getcpu, &value, 0, 0));
    struct timespec t;
    for (int clock = 0; clock < 8; clock++) TRY(clock_gettime(clock, &t));
    SAY(clock_gettime(77, &t));
    SAY(clock_getres(CLOCK_MONOTONIC, &t));
    SAY(clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){0, 2000000000}, 0));
    SAY(nanosleep(&(struct timespec){-1, 0}, 0));
    long start = milliseconds();
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += (t.tv_nsec + 50000000) / 1000000000, t.tv_nsec = (t.tv_nsec + 50000000) % 1000000000;
    SAY(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0));
    printf("slept %d\n", milliseconds() - start >= 49);
    dup2(1, 10), dup2(1, 11), fcntl(11, F_SETFD, FD_CLOEXEC);
    fflush(stdout);
    execve("/proc/self/exe", (char *[]){"renamed", "one", "two", 0}, (char *[]){"X=from exec", 0});
    return 0;
}
