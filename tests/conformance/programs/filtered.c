/* Calls that a blocking value refuses and their neighbours, each often enough to come through both doors. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define ROUNDS 400

static volatile int code, number, vector;
static volatile unsigned arch;
static volatile long rip_off, rax;
static sigjmp_buf back;
extern char at_call[], after_call[];

static void on_signal(int signo, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    code = info->si_code;
    vector = uc->uc_mcontext.gregs[REG_TRAPNO];
    rax = uc->uc_mcontext.gregs[REG_RAX];
    if (signo == SIGSYS) {
        number = info->si_syscall;
        arch = info->si_arch;
        rip_off = (char *)info->si_call_addr - after_call;
        uc->uc_mcontext.gregs[REG_RAX] = -77;
    } else {
        rip_off = (char *)info->si_addr - at_call;
        siglongjmp(back, 1);
    }
}

__attribute__((noinline)) static long call(long nr, long a, long b)
{
    long result;
    register long r10 __asm__("r10") = 0;
    __asm__ volatile(".globl at_call, after_call\nat_call: syscall\nafter_call:"
                     : "=a"(result) : "0"(nr), "D"(a), "S"(b), "d"(0L), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

static void show(const char *what, long nr, long a, long b)
{
    long first = call(nr, a, b), last = first;
    for (int i = 0; i < ROUNDS; i++) {
        call(SYS_getppid, 0, 0); /* keeps the thread hot, and is allowed */
        last = call(nr, a, b);
        if (last != first)
            break;
    }
    printf("%s %s\n", what, last != first ? "changed" : first < 0 ? strerrorname_np(-first) : "served");
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &action, NULL);
    sigaction(SIGILL, &action, NULL);
    show("getuid", SYS_getuid, 0, 0);
    show("getgid", SYS_getgid, 0, 0);
    show("prctl name", SYS_prctl, PR_SET_NAME, (long)"x");
    show("prctl dumpable", SYS_prctl, PR_GET_DUMPABLE, 0);
    show("fcntl getfl", SYS_fcntl, 0, F_GETFL);
    show("fcntl getfd", SYS_fcntl, 0, F_GETFD);
    show("ioctl", SYS_ioctl, 0, 0x5412);
    show("ioctl garbage", SYS_ioctl, 0, 0x5412 | 7L << 32);
    show("number garbage", SYS_getuid | 3L << 32, 0, 0);
    long inet = call(SYS_socket, AF_INET6, SOCK_DGRAM), local = call(SYS_socket, AF_UNIX, SOCK_DGRAM);
    printf("socket %s %s\n", inet < 0 ? strerrorname_np(-inet) : "served", local >= 0 ? "served" : "refused");
    struct { uint64_t flags, rest[7]; uint64_t tail[3]; } args = {.flags = CLONE_NEWUSER, .rest = {0, 0, 0, SIGCHLD}};
    long born = syscall(SYS_clone3, &args, sizeof args);
    printf("clone3 %s\n", born < 0 ? strerrorname_np(errno) : "served");
    if (born == 0)
        _exit(0);
    pid_t child = fork();
    if (child == 0)
        _exit(3);
    int status = 0;
    waitpid(child, &status, 0);
    printf("fork %d\n", WEXITSTATUS(status));
    long result = call(SYS_getpgrp, 0, 0);
    printf("sigsys %ld code %d number %d arch %x rip %ld rax %ld\n", result, code, number == SYS_getpgrp, arch, rip_off,
           rax == SYS_getpgrp);
    if (sigsetjmp(back, 1) == 0)
        call(SYS_getegid, 0, 0);
    else
        printf("exception vector %d rip %ld rax %ld\n", vector, rip_off, rax == SYS_getegid);
    return 0;
}
