/* poll, select and epoll: what is ready, what is wrong, how long, signals and masks, edges, nesting, duplicates. */
#include "probe.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>

static void h(int signo) { (void)signo;
    write(1, "H\n", 2); }
static double now() {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}
int main() {
    setvbuf(stdout, 0, _IOLBF, 0);
    if (fork()) {
        wait(0);
        wait(0);
        return 0;
    }
    int p[2], q[2];
    char b[100];
    pipe(p);
    struct pollfd f[6] = {{p[0], POLLIN}, {p[1], POLLOUT}, {-1, POLLIN}, {77, POLLIN}, {p[0], 0}, {p[1], POLLIN}};
#define D(n)                                                                                                           \
    for (int i = 0; i < n; i++) printf("  %d: %x\n", i, f[i].revents)
    SAY(poll(f, 6, 0));
    D(6);
    write(p[1], "x", 1);
    SAY(poll(f, 6, -1));
    D(6);
    int d = dup(p[0]);
    f[4].fd = d;
    f[4].events = POLLIN | POLLRDNORM;
    SAY(poll(f, 6, -1));
    D(6);
    read(p[0], b, 1);
    double t = now();
    SAY(poll(f, 1, 60));
    printf("waited %d\n", now() - t > 0.055 && now() - t < 0.5);
    close(p[1]);
    SAY(poll(f, 2, -1));
    D(2);
    close(p[0]);
    close(d);
    int r = open("/etc/passwd", O_RDONLY);
    f[0].fd = r;
    f[0].events = POLLIN | POLLOUT | POLLPRI;
    SAY(poll(f, 1, -1));
    D(1);
    int pa = open("/etc", O_PATH);
    f[0].fd = pa;
    SAY(poll(f, 1, 0));
    D(1);
    int nul = open("/dev/null", O_RDWR);
    f[0].fd = nul;
    SAY(poll(f, 1, 0));
    D(1);
    SAY(poll((void *)8, 1, 0));
    SAY(poll(f, 1 << 20, 0));
    SAY(poll(0, 0, 5));
    struct timespec ts = {0, 1000000001};
    SAY(ppoll(0, 0, &ts, 0));
    SAY(syscall(SYS_ppoll, 0, 0, 0, f, 4));
    ts.tv_nsec = 20000000;
    SAY(syscall(SYS_ppoll, 0, 0, &ts, 0, 8));
    printf("left %ld %ld\n", ts.tv_sec, ts.tv_nsec);
    signal(SIGALRM, h);
    sigset_t s, e;
    sigemptyset(&e);
    sigemptyset(&s);
    sigaddset(&s, SIGALRM);
    sigprocmask(SIG_BLOCK, &s, 0);
    raise(SIGALRM);
    SAY(ppoll(0, 0, 0, &e));
    sigset_t cur;
    sigprocmask(0, 0, &cur);
    printf("blocked %d\n", sigismember(&cur, SIGALRM));
    raise(SIGALRM);
    f[0].fd = r;
    SAY(ppoll(f, 1, 0, &e));
    printf("still pending: ");
    fflush(stdout);
    sigpending(&cur);
    printf("%d\n", sigismember(&cur, SIGALRM));
    sigprocmask(SIG_UNBLOCK, &s, 0);
    ualarm(20000, 0);
    SAY(poll(0, 0, -1));
    pid_t c = fork();
    if (!c) {
        usleep(20000);
        kill(getppid(), SIGSTOP);
        usleep(50000);
        kill(getppid(), SIGCONT);
        _exit(0);
    }
    t = now();
    SAY(poll(0, 0, 150));
    printf("%d\n", now() - t > 0.14 && now() - t < 0.6);
    waitpid(c, 0, 0);
    // select
    pipe(p);
    fd_set R, W, X;
    FD_ZERO(&R);
    FD_ZERO(&W);
    FD_ZERO(&X);
    FD_SET(p[0], &R);
    FD_SET(p[1], &W);
    FD_SET(p[0], &X);
    struct timeval tv = {1, 0};
    SAY(select(p[1] + 1, &R, &W, &X, &tv));
    printf("%d %d %d left %d\n", FD_ISSET(p[0], &R), FD_ISSET(p[1], &W), FD_ISSET(p[0], &X),
           tv.tv_sec == 0 && tv.tv_usec > 900000);
    FD_SET(p[0], &R);
    tv = (struct timeval){0, 30000};
    SAY(select(p[0] + 1, &R, 0, 0, &tv));
    printf("%d %ld %ld\n", FD_ISSET(p[0], &R), tv.tv_sec, tv.tv_usec);
    FD_ZERO(&R);
    FD_SET(60, &R);
    SAY(select(61, &R, 0, 0, &tv));
    SAY(select(-1, 0, 0, 0, 0));
    FD_ZERO(&R);
    FD_SET(900, &R);
    SAY(select(1000, &R, 0, 0, &tv));
    tv.tv_sec = -1;
    SAY(select(0, 0, 0, 0, &tv));
    tv.tv_sec = 0;
    tv.tv_usec = 1500000;
    SAY(select(1, (void *)8, 0, 0, &tv));
    ualarm(20000, 0);
    tv.tv_sec = 5;
    SAY(select(0, 0, 0, 0, &tv));
    printf("%ld\n", tv.tv_sec);
    write(p[1], "y", 1);
    FD_ZERO(&R);
    FD_SET(p[0], &R);
    ts.tv_sec = 1;
    SAY(pselect(p[0] + 1, &R, 0, 0, &ts, &e));
    read(p[0], b, 1);
    close(p[1]);
    FD_ZERO(&R);
    FD_SET(p[0], &R);
    SAY(select(p[0] + 1, &R, 0, 0, 0));
    close(p[0]);
    // epoll
    int ep;
    SAY(epoll_create1(EPOLL_CLOEXEC));
    SAY(epoll_create(0));
    SAY(epoll_create1(5));
    ep = epoll_create1(0);
    struct epoll_event ev = {EPOLLIN, {.u64 = 0x123456789abcdefULL}}, o[8];
    pipe(p);
    SAY(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev));
    SAY(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev));
    SAY(epoll_ctl(ep, EPOLL_CTL_MOD, p[1], &ev));
    SAY(epoll_ctl(ep, EPOLL_CTL_DEL, p[1], &ev));
    SAY(epoll_ctl(ep, 9, p[0], &ev));
    SAY(epoll_ctl(ep, EPOLL_CTL_ADD, r, &ev));
    SAY(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &ev));
    SAY(epoll_ctl(ep, EPOLL_CTL_ADD, 99, &ev));
    SAY(epoll_ctl(r, EPOLL_CTL_ADD, p[0], &ev));
    SAY(epoll_ctl(ep, EPOLL_CTL_ADD, p[1], 0));
    SAY(epoll_ctl(ep, EPOLL_CTL_ADD, pa, &ev));
    SAY(epoll_wait(ep, o, 8, 0));
    SAY(epoll_wait(ep, o, 0, 0));
    SAY(epoll_wait(r, o, 1, 0));
    SAY(epoll_wait(ep, (void *)-4096, 8, 0));
    write(p[1], "x", 1);
    SAY(epoll_wait(ep, o, 8, -1));
    printf("%x %llx\n", o[0].events, (long long)o[0].data.u64);
    SAY(epoll_wait(ep, (void *)8, 8, 0));
    SAY(epoll_wait(ep, o, 8, 0));
    d = dup(p[0]);
    ev.data.u64 = 7;
    SAY(epoll_ctl(ep, EPOLL_CTL_ADD, d, &ev));
    SAY(epoll_wait(ep, o, 8, 0));
    close(p[0]);
    SAY(epoll_wait(ep, o, 8, 0));
    close(d);
    SAY(epoll_wait(ep, o, 8, 0));
    signal(SIGPIPE, SIG_IGN);
    SAY(write(p[1], "x", 1));
    close(p[1]);
    // ET oneshot
    int ef = eventfd(0, EFD_NONBLOCK);
    ev.events = EPOLLIN | EPOLLET;
    SAY(epoll_ctl(ep, EPOLL_CTL_ADD, ef, &ev));
    eventfd_write(ef, 1);
    SAY(epoll_wait(ep, o, 8, 0));
    SAY(epoll_wait(ep, o, 8, 0));
    eventfd_write(ef, 1);
    SAY(epoll_wait(ep, o, 8, 0));
    ev.events = EPOLLIN | EPOLLONESHOT;
    SAY(epoll_ctl(ep, EPOLL_CTL_MOD, ef, &ev));
    SAY(epoll_wait(ep, o, 8, 0));
    eventfd_write(ef, 1);
    SAY(epoll_wait(ep, o, 8, 0));
    ev.events = EPOLLIN;
    SAY(epoll_ctl(ep, EPOLL_CTL_MOD, ef, &ev));
    int e2 = epoll_create1(0), e3 = epoll_create1(0);
    SAY(epoll_ctl(e2, EPOLL_CTL_ADD, ep, &ev));
    SAY(epoll_ctl(ep, EPOLL_CTL_ADD, e2, &ev));
    SAY(epoll_wait(e2, o, 8, 0));
    SAY(epoll_ctl(e3, EPOLL_CTL_ADD, e2, &ev));
    f[0].fd = e3;
    f[0].events = POLLIN;
    SAY(poll(f, 1, 0));
    D(1);
    ev.events = EPOLLIN | EPOLLEXCLUSIVE;
    SAY(epoll_ctl(e3, EPOLL_CTL_ADD, ef, &ev));
    SAY(epoll_ctl(e3, EPOLL_CTL_MOD, ef, &ev));
    ev.events |= EPOLLONESHOT;
    SAY(epoll_ctl(e2, EPOLL_CTL_ADD, ef, &ev));
    c = fork();
    if (!c) {
                        usleep(30000);
        eventfd_write(ef, 1);
        _exit(0);
    }
    eventfd_t v;
    eventfd_read(ef, &v);
    SAY(epoll_wait(ep, o, 8, 1000));
    waitpid(c, 0, 0);
    eventfd_read(ef, &v);
    ualarm(20000, 0);
    SAY(epoll_wait(ep, o, 8, -1));
    sigprocmask(SIG_BLOCK, &s, 0);
    raise(SIGALRM);
    SAY(epoll_pwait(ep, o, 8, -1, &e));
    SAY(epoll_pwait(ep, o, 8, 10, 0));
    ts = (struct timespec){0, 10000000};
    SAY(syscall(441, ep, o, 8, &ts, 0, 0));
    t = now();
    SAY(epoll_wait(ep, o, 8, 50));
    printf("%d\n", now() - t > 0.045);
    struct rlimit rl = {200, 200};
    setrlimit(RLIMIT_NOFILE, &rl);
    printf("big %d\n", dup2(ef, 199));
    f[0].fd = 199;
    eventfd_write(ef, 3);
    SAY(poll(f, 1, 0));
    SAY(poll(f, 201, 0));
    for (int i = 0; i < 30; i++) printf("%d%d ", i, fcntl(i, F_GETFD) >= 0);
    int n = 0;
    while (epoll_create1(0) >= 0) n++;
    printf("%d %s\n", n, strerrorname_np(errno));
    return 0;
}
