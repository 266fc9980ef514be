/* Bad pointers in every argument: the kernel answers EFAULT, and nothing else happens. */
#include "probe.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/utsname.h>

static void with(const char *title, void *bad, void *readonly) {
    int pair[2], p[2], dev = open("/dev/zero", O_RDWR), file = open("file", O_RDWR | O_CREAT, 0600);
    struct iovec iov = {bad, 10}, *pi = &iov;
    struct msghdr message = {.msg_iov = bad, .msg_iovlen = 1};
    printf("-- %s\n", title);
    pipe(p);
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    write(p[1], "0123456789", 10);
    write(pair[0], "0123456789", 10);
    write(file, "0123456789", 10);
    SAY(syscall(SYS_read, dev, bad, 10));
    SAY(syscall(SYS_read, p[0], bad, 5));
    SAY(syscall(SYS_pread64, file, bad, 5, 0));
    SAY(syscall(SYS_write, p[1], bad, 10));
    SAY(syscall(SYS_write, file, bad, 10));
    SAY(syscall(SYS_readv, dev, pi, 1));
    SAY(syscall(SYS_writev, p[1], pi, 1));
    SAY(syscall(SYS_readv, dev, bad, 2));
    SAY(syscall(SYS_open, bad, O_RDONLY));
    SAY(syscall(SYS_openat, AT_FDCWD, bad, O_RDONLY, 0));
    SAY(syscall(SYS_stat, bad, readonly));
    SAY(syscall(SYS_stat, "/", bad));
    SAY(syscall(SYS_fstat, file, bad));
    SAY(syscall(SYS_newfstatat, AT_FDCWD, bad, bad, 0));
    SAY(syscall(SYS_statx, AT_FDCWD, "/", 0, STATX_BASIC_STATS, bad));
    SAY(syscall(SYS_access, bad, F_OK));
    SAY(syscall(SYS_readlink, "/proc/self/exe", bad, 10));
    SAY(syscall(SYS_getcwd, bad, 4096));
    SAY(syscall(SYS_chdir, bad));
    SAY(syscall(SYS_mkdir, bad, 0700));
    SAY(syscall(SYS_unlink, bad));
    SAY(syscall(SYS_rename, "file", bad));
    SAY(syscall(SYS_symlink, bad, "x"));
    SAY(syscall(SYS_pipe2, bad, 0));
    SAY(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, bad));
    SAY(syscall(SYS_sendto, pair[0], bad, 10, 0, NULL, 0));
    SAY(syscall(SYS_recvfrom, pair[1], bad, 10, 0, NULL, NULL));
    SAY(syscall(SYS_sendmsg, pair[0], bad, 0));
    SAY(syscall(SYS_sendmsg, pair[0], &message, 0));
    SAY(syscall(SYS_recvmsg, pair[1], bad, 0));
    SAY(syscall(SYS_bind, pair[0], bad, 16));
    SAY(syscall(SYS_getsockname, pair[0], bad, bad));
    SAY(syscall(SYS_setsockopt, pair[0], SOL_SOCKET, SO_SNDBUF, bad, 4));
    SAY(syscall(SYS_getsockopt, pair[0], SOL_SOCKET, SO_SNDBUF, bad, bad));
    SAY(syscall(SYS_poll, bad, 1, 0));
    if (bad) SAY(syscall(SYS_select, 3, bad, NULL, NULL, NULL));
    SAY(syscall(SYS_epoll_ctl, syscall(SYS_epoll_create1, 0), EPOLL_CTL_ADD, p[0], bad));
    SAY(syscall(SYS_nanosleep, bad, NULL));
    SAY(syscall(SYS_clock_gettime, CLOCK_MONOTONIC_RAW, bad));
    SAY(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, bad, NULL));
    SAY(syscall(SYS_getitimer, ITIMER_REAL, bad));
    SAY(syscall(SYS_setitimer, ITIMER_REAL, bad, NULL));
    SAY(syscall(SYS_rt_sigaction, SIGUSR1, bad, NULL, 8));
    SAY(syscall(SYS_rt_sigaction, SIGUSR1, NULL, bad, 8));
    SAY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, bad, NULL, 8));
    SAY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, bad, 8));
    SAY(syscall(SYS_rt_sigpending, bad, 8));
    SAY(syscall(SYS_rt_sigsuspend, bad, 8));
    SAY(syscall(SYS_rt_sigtimedwait, bad, NULL, NULL, 8));
    SAY(syscall(SYS_sigaltstack, bad, NULL));
    SAY(syscall(SYS_futex, bad, 0 /* FUTEX_WAIT */, 0, NULL));
    SAY(syscall(SYS_getrlimit, RLIMIT_NOFILE, bad));
    SAY(syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, bad, NULL));
    SAY(syscall(SYS_getrusage, RUSAGE_SELF, bad));
    SAY(syscall(SYS_times, bad) == -1 ? -1 : 1);
    SAY(syscall(SYS_uname, bad));
    SAY(syscall(SYS_sysinfo, bad));
    SAY(syscall(SYS_getrandom, bad, 16, 0));
    SAY(syscall(SYS_sched_getaffinity, 0, 8, bad));
    SAY(syscall(SYS_getgroups, 0, bad) >= 0);
    SAY(syscall(SYS_execve, bad, NULL, NULL));
    if (bad) SAY(syscall(SYS_execve, "/bin/true", bad, NULL));
    SAY(syscall(SYS_getdents64, open("/", O_RDONLY | O_DIRECTORY), bad, 1000));
    SAY(syscall(SYS_sendfile, p[1], dev, bad, 10));
    SAY(syscall(SYS_timer_create, CLOCK_MONOTONIC, NULL, bad));
    SAY(syscall(SYS_gettimeofday, bad, NULL));
    SAY(syscall(SYS_utimensat, AT_FDCWD, "file", bad, 0));
    SAY(syscall(SYS_memfd_create, bad, 0));
    SAY(syscall(SYS_fcntl, file, F_GETLK, bad));
    SAY(syscall(SYS_ioctl, p[0], 0x541B /* FIONREAD */, bad));
    SAY(syscall(SYS_prctl, 15 /* PR_SET_NAME */, bad));
    SAY(syscall(SYS_mincore, bad, PAGE, readonly));
    int child = fork();
    if (!child) _exit(3);
    SAY(syscall(SYS_wait4, child, bad, 0, NULL) == child);
    for (int fd = 3; fd < 40; fd++) close(fd);
}

int main(void) {
    char *holes = mmap(0, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *readonly = mmap(0, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(holes + PAGE, PAGE);
    with("address 0", NULL, readonly);
    with("address 8", (void *)8, readonly);
    with("a hole", holes + PAGE, readonly);
    with("no access", mmap(0, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), readonly);
    with("the kernel's half", (void *)0xffffffff80000000UL, readonly);
    with("non-canonical", (void *)0x8000000000000000UL, readonly);
    with("the edge", (void *)0x7ffffffff000UL, readonly);
    printf("-- partial transfers at the edge of a page\n");
    int p[2], zero = open("/dev/zero", O_RDONLY), file = open("file2", O_RDWR | O_CREAT, 0600);
    struct iovec iov[2] = {{holes + PAGE - 4, 4}, {holes + PAGE, 4}};
    pipe(p);
    write(file, "0123456789", 10);
    SAY(write(p[1], holes + PAGE - 4, 8));
    SAY(writev(p[1], iov, 2));
    SAY(read(zero, holes + PAGE - 4, 8));
    SAY(pread(file, holes + PAGE - 4, 8, 0));
    SAY(readv(zero, iov, 2));
    SAY(read(zero, readonly, 8));
    SAY(open(strcpy(holes + PAGE - 5, "file"), O_RDONLY) > 0);
    memset(holes, 'x', PAGE);
    SAY(open(holes + 10, O_RDONLY));
    SAY(open(memset(malloc(5000), 'y', 5000), O_RDONLY));
    SAY(open("", O_RDONLY));
    SAY(mkdir(memset(calloc(1, 300), 'z', 256), 0700));
    return 0;
}
