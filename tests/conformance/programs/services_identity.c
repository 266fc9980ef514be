/* Who a process is, what it may become, and what it is told about limits, priorities and processors. Starts as root. */
#include "probe.h"
#include <asm/prctl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/membarrier.h>
#include <sys/fsuid.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#define IN_CHILD(code) do { fflush(stdout); pid_t c_ = fork(); if (!c_) { printf("-- %s\n", #code); code; fflush(stdout); _exit(0); } waitpid(c_, 0, 0); } while (0)

static void who(void) {
    unsigned r, e, s;
    syscall(SYS_getresuid, &r, &e, &s);
    printf("uid %d %d %d fs %d", r, e, s, setfsuid(-1));
    syscall(SYS_getresgid, &r, &e, &s);
    printf(" gid %d %d %d fs %d groups", r, e, s, setfsgid(-1));
    gid_t groups[10];
    int n = getgroups(10, groups);
    for (int i = 0; i < n; i++) printf(" %d", groups[i]);
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2];
    syscall(SYS_capget, &h, d);
    unsigned bit = 1 << CAP_SETUID;
    printf(" caps %d%d%d%d%d\n", !!d[0].effective, !!d[0].permitted, !!d[0].inheritable, !!(d[0].effective & bit), !!(d[0].permitted & bit));
    fflush(stdout);
}
static void users(void) {
    setgroups(0, 0);
    who();
    IN_CHILD(SAY(setuid(1000)); who(); SAY(setuid(0)); SAY(setuid(1000)); SAY(setgid(5)); SAY(setgroups(0, 0)));
    IN_CHILD(SAY(seteuid(1000)); who(); SAY(setuid(0)); who(); SAY(seteuid(0)); who());
    IN_CHILD(SAY(setreuid(1000, 1001)); who(); SAY(setreuid(1001, 1000)); who(); SAY(setreuid(-1, 0)); SAY(setreuid(1000, -1)); who());
    IN_CHILD(SAY(setresuid(1000, 1001, 1002)); who(); SAY(setresuid(1002, 1000, 1001)); who(); SAY(setresuid(0, -1, -1)); SAY(setresuid(-1, -1, -1)); SAY(setuid(1001)); who());
    IN_CHILD(SAY(setresuid(1000, 1000, 0)); who(); SAY(setresuid(0, 0, 0)); who());
    IN_CHILD(SAY(setfsuid(1000)); who(); SAY(setfsuid(7)); SAY(setfsuid(0)); who());
    IN_CHILD(SAY(prctl(PR_SET_KEEPCAPS, 1)); SAY(prctl(PR_GET_KEEPCAPS)); SAY(setuid(1000)); who());
    IN_CHILD(SAY(setresgid(10, 11, 12)); who(); SAY(setgid(13)); who(); SAY(setregid(5, 6)); who(); SAY(setegid(5)); who());
    IN_CHILD(SAY(setuid(1000)); SAY(setresgid(1, 1, 1)); SAY(setresgid(0, 0, 0)); SAY(setfsgid(9)); who());
    gid_t groups[] = {30, 10, 20};
    IN_CHILD(SAY(setgroups(3, groups)); who(); SAY(getgroups(2, groups)); SAY(getgroups(0, groups)); SAY(getgroups(-1, groups)); SAY(setgroups(70000, groups)); SAY(syscall(SYS_setgroups, 3, 8)));
    SAY(syscall(SYS_setuid, -1));
    SAY(syscall(SYS_setgid, -1));
    SAY(syscall(SYS_getresuid, 8, 8, 8));
    struct __user_cap_header_struct h = {0, 0};
    struct __user_cap_data_struct d[2] = {0};
    SAY(syscall(SYS_capget, &h, d));
    printf("version %#x\n", h.version);
    h.version = 0;
    SAY(syscall(SYS_capget, &h, 0));
    h.pid = -1;
    SAY(syscall(SYS_capget, &h, d));
    h.pid = 999999;
    SAY(syscall(SYS_capget, &h, d));
    SAY(syscall(SYS_capset, &h, d));
    h.pid = 0;
    IN_CHILD(SAY(syscall(SYS_capset, &h, d)); who(); d[0].permitted = 1; SAY(syscall(SYS_capset, &h, d)); SAY(setuid(5)); who());
    IN_CHILD(SAY(prctl(PR_CAPBSET_READ, CAP_CHOWN)); SAY(prctl(PR_CAPBSET_DROP, CAP_CHOWN)); SAY(prctl(PR_CAPBSET_READ, CAP_CHOWN)); SAY(prctl(PR_CAPBSET_READ, 99)); SAY(setuid(3)); SAY(prctl(PR_CAPBSET_DROP, CAP_KILL)));
    IN_CHILD(SAY(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0)); SAY(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0)); SAY(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)); SAY(prctl(PR_CAP_AMBIENT, 9, 0, 0, 0)));
    IN_CHILD(SAY(prctl(PR_SET_SECUREBITS, 4)); SAY(prctl(PR_GET_SECUREBITS)); SAY(setuid(4)); who());
}
static void become(int self) {
    fflush(stdout);
    fexecve(self, (char *[]){"who", "who", NULL}, (char *[]){NULL});
    perror("fexecve");
}
static void exec_as(int self) {
    IN_CHILD(setuid(1000); become(self));
    IN_CHILD(prctl(PR_SET_KEEPCAPS, 1); setuid(1000); become(self));
    IN_CHILD(setresuid(1000, 0, 1000); become(self));
    IN_CHILD(setresuid(1000, 1001, 0); become(self));
}
static void limits(void) {
    struct rlimit r = {10, 5}, old;
    SAY(setrlimit(RLIMIT_NOFILE, &r));
    r = (struct rlimit){20, 30};
    SAY(syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &r, &old));
    SAY(getrlimit(RLIMIT_NOFILE, &old));
    printf("%ld %ld\n", (long)old.rlim_cur, (long)old.rlim_max);
    int fds = 0;
    while (dup(0) >= 0) fds++;
    printf("%d %s\n", fds <= 17, strerrorname_np(errno));
    SAY(getrlimit(16, &r));
    SAY(setrlimit(-1, &r));
    SAY(syscall(SYS_prlimit64, 999999, 0, 0, &r));
    SAY(syscall(SYS_prlimit64, 0, 0, 8, 0));
    setuid(1000);
    r = (struct rlimit){20, 31};
    SAY(setrlimit(RLIMIT_NOFILE, &r));
    SAY(syscall(SYS_prlimit64, getppid(), RLIMIT_CORE, &r, 0));
    r.rlim_cur = r.rlim_max = 1UL << 30;
    SAY(setrlimit(RLIMIT_NOFILE, &r));
    r = (struct rlimit){1 << 20, 1 << 20};
    SAY(setrlimit(RLIMIT_STACK, &r));
    fflush(stdout);
    if (!fork()) { getrlimit(RLIMIT_STACK, &r); printf("inherited %ld\n", (long)r.rlim_cur); fflush(stdout); _exit(0); }
    wait(0);
}
static void *named(void *p) { char n[16]; prctl(PR_SET_NAME, "a thread with a long name"); prctl(PR_GET_NAME, n); puts(n); return p; }
static void asks(void) {
    char name[17] = "";
    int n = -1;
    pthread_t t;
    SAY(prctl(PR_SET_NAME, "tester"));
    pthread_create(&t, 0, named, 0), pthread_join(t, 0);
    SAY(prctl(PR_GET_NAME, name));
    puts(name);
    SAY(prctl(PR_SET_NAME, 8));
    SAY(prctl(PR_SET_PDEATHSIG, SIGUSR1));
    SAY(prctl(PR_GET_PDEATHSIG, &n));
    printf("%d\n", n);
    SAY(prctl(PR_SET_PDEATHSIG, 65));
    SAY(prctl(PR_SET_PDEATHSIG, 0));
    SAY(prctl(PR_SET_CHILD_SUBREAPER, 1));
    SAY(prctl(PR_GET_CHILD_SUBREAPER, &n));
    printf("%d\n", n);
    SAY(prctl(PR_GET_DUMPABLE));
    SAY(prctl(PR_SET_DUMPABLE, 2));
    SAY(prctl(PR_SET_DUMPABLE, 0));
    SAY(prctl(PR_GET_DUMPABLE));
    SAY(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    SAY(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
    SAY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    SAY(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    SAY(prctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0));
    SAY(prctl(PR_GET_TIMERSLACK));
    SAY(prctl(PR_SET_TIMERSLACK, 1000));
    SAY(prctl(PR_GET_TIMERSLACK));
    SAY(prctl(PR_SET_TIMERSLACK, 0));
    SAY(prctl(PR_GET_TIMERSLACK));
    SAY(prctl(PR_GET_TIMING));
    SAY(prctl(PR_SET_TIMING, 1));
    SAY(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    SAY(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    SAY(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    SAY(prctl(PR_MCE_KILL, 5, 0, 0, 0));
    SAY(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
    SAY(prctl(PR_GET_TSC, &n));
    printf("%d\n", n);
    SAY(prctl(PR_SET_TSC, 9));
    SAY(prctl(9999));
    unsigned long base = 0, again;
    SAY(syscall(SYS_arch_prctl, ARCH_GET_FS, &base));
    SAY(syscall(SYS_arch_prctl, ARCH_SET_FS, base));
    SAY(syscall(SYS_arch_prctl, ARCH_SET_GS, 0x1234));
    SAY(syscall(SYS_arch_prctl, ARCH_GET_GS, &again));
    printf("%lx %d\n", again, base == (unsigned long)pthread_self());
    SAY(syscall(SYS_arch_prctl, ARCH_SET_GS, 1UL << 47));
    SAY(syscall(SYS_arch_prctl, ARCH_SET_FS, -1UL));
    SAY(syscall(SYS_arch_prctl, ARCH_GET_CPUID, 0));
    SAY(syscall(SYS_arch_prctl, 77, 0));
    SAY(personality(0xffffffff));
    SAY(personality(ADDR_NO_RANDOMIZE));
    SAY(personality(0xffffffff));
    struct utsname u;
    SAY(uname(&u));
    printf("%s %s\n", u.sysname, u.machine);
    SAY(uname((void *)8));
    struct sysinfo i;
    SAY(sysinfo(&i));
    printf("unit %d, free %d, running %d\n", i.mem_unit, i.freeram > 0 && i.freeram <= i.totalram, i.procs > 0 && i.uptime > 0);
    unsigned char r[600];
    SAY(getrandom(r, 600, 0));
    SAY(getrandom(r, 16, GRND_NONBLOCK | GRND_RANDOM));
    SAY(getrandom(r, 1, 8));
    SAY(getrandom(r, 1, GRND_RANDOM | 4));
    SAY(getrandom((void *)8, 16, 0));
    SAY(getrandom((void *)8, 0, 0));
    SAY((syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0) & 0x7f) == 0x7f);
    SAY(syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 1, 0));
    SAY(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
    SAY(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
    SAY(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
    SAY(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0));
    SAY(syscall(SYS_membarrier, 3, 0, 0));
}
static void scheduling(void) {
    struct sched_param p = {1};
    struct timespec t;
    cpu_set_t set;
    SAY(setuid(1000));
    for (int i = -1; i < 7; i++) printf("policy %d: %d %d\n", i, sched_get_priority_min(i), sched_get_priority_max(i));
    SAY(sched_getscheduler(0));
    SAY(sched_getscheduler(-1));
    SAY(sched_getscheduler(999999));
    SAY(sched_setscheduler(0, SCHED_FIFO, &p));
    SAY(sched_setscheduler(0, SCHED_OTHER, &p));
    p.sched_priority = 0;
    SAY(sched_setscheduler(0, SCHED_FIFO, &p));
    SAY(sched_setscheduler(0, SCHED_BATCH, &p));
    SAY(sched_getscheduler(0));
    SAY(sched_setscheduler(0, SCHED_IDLE | SCHED_RESET_ON_FORK, &p));
    SAY(sched_getscheduler(0) == (SCHED_IDLE | SCHED_RESET_ON_FORK));
    fflush(stdout);
    if (!fork()) { SAY(sched_getscheduler(0)); _exit(0); }
    wait(0);
    SAY(sched_setscheduler(0, 77, &p));
    SAY(sched_setscheduler(0, 0, 0));
    SAY(sched_getparam(0, &p));
    printf("%d\n", p.sched_priority);
    SAY(sched_setparam(0, &p));
    SAY(sched_rr_get_interval(-5, &t));
    SAY(sched_getaffinity(0, sizeof set, &set));
    printf("processors %d\n", CPU_COUNT(&set) > 0);
    SAY(sched_setaffinity(0, sizeof set, &set));
    SAY(syscall(SYS_sched_getaffinity, 0, 8, &set) > 0);
    SAY(syscall(SYS_sched_getaffinity, 0, 7, &set));
    CPU_ZERO(&set);
    SAY(sched_setaffinity(0, sizeof set, &set));
    unsigned cpu = 9999, node = 9999;
    SAY(syscall(SYS_getcpu, &cpu, &node, 0));
    printf("%d\n", cpu < 4096 && node < 64);
    struct { unsigned size, policy; unsigned long flags; int nice; unsigned priority; unsigned long runtime, deadline, period; unsigned low, high; } a = {.size = sizeof a};
    SAY(syscall(SYS_sched_getattr, 0, &a, 20, 0));
    SAY(syscall(SYS_sched_getattr, 0, &a, 48, 0));
    printf("%d %d %ld %d %d\n", a.size, a.policy, a.flags, a.nice, a.priority);
    a.policy = SCHED_BATCH, a.nice = 5, a.size = 48;
    SAY(syscall(SYS_sched_setattr, 0, &a, 0));
    SAY(getpriority(PRIO_PROCESS, 0));
    SAY(syscall(SYS_getpriority, 0, 0));
    a.policy = 99;
    SAY(syscall(SYS_sched_setattr, 0, &a, 0));
    SAY(syscall(SYS_sched_setattr, 0, &a, 1));
    a.size = 5;
    SAY(syscall(SYS_sched_setattr, 0, &a, 0));
    SAY(setpriority(PRIO_PROCESS, 0, 3));
    SAY(nice(2));
    SAY(setpriority(PRIO_PROCESS, 0, 100));
    SAY(getpriority(PRIO_PROCESS, 0));
    SAY(setpriority(PRIO_PROCESS, getppid(), 5));
    SAY(setpriority(PRIO_PROCESS, 999999, 5));
    SAY(getpriority(7, 0));
    SAY(getpriority(PRIO_PGRP, 999999));
    SAY(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 3));
    SAY(syscall(SYS_ioprio_get, 1, 0));
    SAY(syscall(SYS_ioprio_set, 9, 0, 0));
    SAY(syscall(SYS_ioprio_get, 1, 999999));
    SAY(sched_yield());
}
static void refused(void) {
    setuid(1000);
    SAY(syscall(SYS_mount, "a", "/tmp", "tmpfs", 0, 0));
    SAY(syscall(SYS_umount2, "/tmp", 0));
    SAY(chroot("/"));
    SAY(syscall(SYS_pivot_root, "/tmp", "/tmp"));
    SAY(sethostname("x", 1));
    SAY(syscall(SYS_setdomainname, "x", 1));
    SAY(syscall(SYS_reboot, 0xfee1dead, 672274793, 0, 0));
    SAY(syscall(SYS_swapon, "/tmp", 0));
    SAY(syscall(SYS_acct, "/tmp/x"));
    SAY(syscall(SYS_vhangup));
    SAY(clock_settime(CLOCK_REALTIME, &(struct timespec){1, 0}));
    SAY(syscall(SYS_settimeofday, &(long[2]){1, 0}, 0));
}
int main(int count, char **arguments) {
    const char *part = count > 1 ? arguments[1] : "";
    if (!strcmp(part, "who")) who();
    else if (!strcmp(part, "users")) users();
    else if (!strcmp(part, "exec")) exec_as(open(arguments[0], O_RDONLY));
    else if (!strcmp(part, "limits")) limits();
    else if (!strcmp(part, "asks")) asks();
    else if (!strcmp(part, "scheduling")) scheduling();
    else if (!strcmp(part, "refused")) refused();
    return 0;
}
