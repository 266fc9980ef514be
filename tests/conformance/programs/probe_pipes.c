/* Pipes, non-blocking, poll, select, epoll, eventfd, splice, terminals, locks. */
#include "probe.h"
#include <poll.h>
#include <pty.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <termios.h>

static char buffer[1 << 17];
static volatile int got;
static void bump(int n) { got = n; }

static void *write_later(void *p) { nap(80); write(*(int *)p, "late", 4); return 0; }
static void *close_later(void *p) { nap(80); close(*(int *)p); return 0; }
static void *drain(void *p) {
    long total = 0, n;
    while ((n = read(*(int *)p, buffer, 5000)) > 0) total += n;
    return (void *)total;
}

static void say_poll(const char *title, int fd) {
    struct pollfd p = {fd, POLLIN | POLLOUT | POLLPRI | POLLRDHUP, 0};
    int n = poll(&p, 1, 0);
    printf("%s: %d %#x\n", title, n, p.revents);
}

static void pipes(void) {
    int p[2], q[2];
    pthread_t t;
    void *result;
    SAY(pipe2(p, O_NONBLOCK | O_CLOEXEC));
    SAY(fcntl(p[0], F_GETFL) & O_NONBLOCK);
    SAY(fcntl(p[0], F_GETFD));
    SAY(read(p[0], buffer, 10));
    SAY(write(p[1], "hello", 5));
    SAY(ioctl(p[0], FIONREAD, &got));
    printf("%d bytes wait\n", got);
    SAY(read(p[0], buffer, 0));
    SAY(read(p[0], buffer, 3));
    SAY(read(p[0], buffer, 100));
    SAY(write(p[1], buffer, 1 << 17));
    SAY(write(p[1], buffer, 1));
    say_poll("full, write end", p[1]);
    say_poll("full, read end", p[0]);
    SAY(fcntl(p[1], F_GETPIPE_SZ));
    SAY(fcntl(p[1], F_SETPIPE_SZ, 1 << 17));
    SAY(lseek(p[0], 0, SEEK_SET));
    SAY(pread(p[0], buffer, 1, 0));
    SAY(ftruncate(p[0], 0));
    SAY(write(p[0], "x", 1));
    SAY(read(p[1], buffer, 1));
    close(p[1]);
    SAY(read(p[0], buffer, sizeof buffer));
    SAY(read(p[0], buffer, 1));
    say_poll("no writer", p[0]);
    close(p[0]);
    pipe(p);
    close(p[0]);
    signal(SIGPIPE, bump);
    SAY(write(p[1], "x", 1));
    printf("signal %d\n", got);
    say_poll("no reader", p[1]);
    close(p[1]);
    pipe(p);
    pthread_create(&t, 0, write_later, &p[1]);
    SAY(read(p[0], buffer, 100));
    pthread_join(t, 0);
    pthread_create(&t, 0, close_later, &p[1]);
    SAY(read(p[0], buffer, 100));
    pthread_join(t, 0);
    pipe(q);
    pthread_create(&t, 0, drain, &q[0]);
    SAY(write(q[1], buffer, sizeof buffer));
    SAY(writev(q[1], (struct iovec[]){{buffer, 70000}, {buffer, 0}, {buffer, 50000}}, 3));
    close(q[1]);
    pthread_join(t, &result);
    printf("drained %ld\n", (long)result);
    SAY(mkfifo("fifo", 0600));
    SAY(open("fifo", O_WRONLY | O_NONBLOCK));
    int r = open("fifo", O_RDONLY | O_NONBLOCK);
    SAY(read(r, buffer, 1));
    int w = open("fifo", O_WRONLY);
    SAY(write(w, "through", 7));
    SAY(read(r, buffer, 10));
    mkfifo("fifo2", 0600);
    fflush(stdout);
    if (!fork()) { nap(60); int f = open("fifo2", O_WRONLY); write(f, "met", 3); _exit(0); }
    r = open("fifo2", O_RDONLY);
    SAY(read(r, buffer, 10));
    wait(0);
}

static void waiting(void) {
    int p[2], e = epoll_create1(EPOLL_CLOEXEC), ev = eventfd(3, EFD_NONBLOCK);
    struct epoll_event events[4], want = {.events = EPOLLIN | EPOLLET, .data.u64 = 77};
    uint64_t value;
    fd_set in, out;
    pipe(p);
    SAY(epoll_ctl(e, EPOLL_CTL_ADD, p[0], &want));
    SAY(epoll_ctl(e, EPOLL_CTL_ADD, p[0], &want));
    SAY(epoll_ctl(e, EPOLL_CTL_DEL, 77, 0));
    SAY(epoll_ctl(e, EPOLL_CTL_ADD, e, &want));
    SAY(epoll_ctl(e, EPOLL_CTL_ADD, open("file", O_RDWR | O_CREAT, 0600), &want));
    SAY(epoll_wait(e, events, 4, 0));
    write(p[1], "x", 1);
    SAY(epoll_wait(e, events, 4, 1000));
    printf("%lu %#x\n", events[0].data.u64, events[0].events);
    SAY(epoll_wait(e, events, 4, 0));
    want.events = EPOLLIN | EPOLLONESHOT;
    want.data.u64 = 78;
    SAY(epoll_ctl(e, EPOLL_CTL_MOD, p[0], &want));
    SAY(epoll_wait(e, events, 4, 0));
    SAY(epoll_wait(e, events, 4, 0));
    long start = milliseconds();
    SAY(epoll_wait(e, events, 4, 60));
    printf("waited %d\n", milliseconds() - start >= 59);
    SAY(epoll_wait(e, events, 0, 0));
    SAY(epoll_wait(p[0], events, 4, 0));
    SAY(read(ev, &value, 8));
    printf("eventfd %lu\n", value);
    SAY(read(ev, &value, 8));
    SAY(write(ev, &(uint64_t){UINT64_MAX}, 8));
    SAY(write(ev, &(uint64_t){UINT64_MAX - 1}, 8));
    SAY(write(ev, &(uint64_t){1}, 8));
    SAY(read(ev, &value, 4));
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(p[0], &in);
    FD_SET(p[1], &out);
    FD_SET(ev, &in);
    SAY(select(20, &in, &out, 0, &(struct timeval){1, 0}));
    printf("%d %d %d\n", !!FD_ISSET(p[0], &in), !!FD_ISSET(p[1], &out), !!FD_ISSET(ev, &in));
    SAY(poll((struct pollfd[]){{-1, POLLIN, 0}, {99, POLLIN, 0}}, 2, 0));
    read(p[0], buffer, 1);
    start = milliseconds();
    SAY(ppoll(&(struct pollfd){p[0], POLLIN, 0}, 1, &(struct timespec){0, 60000000}, 0));
    printf("waited %d\n", milliseconds() - start >= 59);
    pthread_t t;
    pthread_create(&t, 0, write_later, &p[1]);
    SAY(poll(&(struct pollfd){p[0], POLLIN, 0}, 1, 5000));
    pthread_join(t, 0);
    int n = inotify_init1(IN_NONBLOCK);
    mkdir("watched", 0700);
    SAY(inotify_add_watch(n, "watched", IN_CREATE | IN_DELETE | IN_MOVED_TO));
    close(open("watched/a", O_CREAT | O_WRONLY, 0600));
    rename("watched/a", "watched/b");
    unlink("watched/b");
    long size = read(n, buffer, sizeof buffer), at = 0;
    while (at < size) {
        struct inotify_event *i = (void *)(buffer + at);
        printf("inotify %#x %s\n", i->mask, i->len ? i->name : "");
        at += sizeof *i + i->len;
    }
}

static void moving(void) {
    int p[2], q[2], file = open("data", O_RDWR | O_CREAT | O_TRUNC, 0600), other = open("other", O_RDWR | O_CREAT, 0600);
    loff_t offset = 2;
    pipe(p), pipe(q);
    write(file, "0123456789", 10);
    SAY(sendfile(p[1], file, &offset, 100));
    printf("offset %ld\n", (long)offset);
    SAY(tee(p[0], q[1], 5, 0));
    SAY(splice(p[0], 0, other, 0, 100, 0));
    SAY(pread(other, buffer, 20, 0));
    SAY(splice(file, 0, other, 0, 10, 0));
    SAY(vmsplice(p[1], &(struct iovec){"vm", 2}, 1, 0));
    SAY(read(q[0], buffer, 20));
    offset = 0;
    SAY(copy_file_range(file, &offset, other, &(loff_t){20}, 10, 0));
    SAY(lseek(other, 0, SEEK_END));
    SAY(sendfile(other, p[0], 0, 1));
}

static void locks(void) {
    int file = open("lock", O_RDWR | O_CREAT, 0600), status, tell[2];
    char c;
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 10};
    SAY(fcntl(file, F_SETLK, &l));
    fflush(stdout);
    pipe(tell);
    if (!fork()) {
        pid_t parent = getppid();
        SAY(fcntl(file, F_SETLK, &l));
        SAY(fcntl(file, F_GETLK, &l));
        printf("held by the parent %d, type %d, %ld+%ld\n", l.l_pid == parent, l.l_type, (long)l.l_start, (long)l.l_len);
        l = (struct flock){.l_type = F_WRLCK, .l_start = 30, .l_len = 1};
        SAY(fcntl(file, F_SETLK, &l));
        l.l_start = 10;
        write(tell[1], "x", 1);
        SAY(fcntl(file, F_SETLKW, &l));
        _exit(0);
    }
    read(tell[0], &c, 1);
    nap(80);
    l = (struct flock){.l_type = F_UNLCK};
    int unlocked = fcntl(file, F_SETLK, &l);
    wait(&status);
    SAY(unlocked);
    SAY(flock(file, LOCK_EX));
    int again = open("lock", O_RDWR);
    SAY(flock(again, LOCK_SH | LOCK_NB));
    SAY(flock(dup(file), LOCK_UN));
    SAY(flock(again, LOCK_SH | LOCK_NB));
}

static void terminals(void) {
    int master, slave;
    char name[100];
    struct termios t;
    struct winsize w = {40, 100, 0, 0};
    SAY(ioctl(open("/dev/null", O_RDWR), TCGETS, &t));
    SAY(openpty(&master, &slave, name, 0, &w));
    printf("named beneath /dev/pts: %d, tty %d\n", !strncmp(name, "/dev/pts/", 9), isatty(slave));
    SAY(ioctl(slave, TIOCGWINSZ, &w));
    printf("%d by %d\n", w.ws_row, w.ws_col);
    tcgetattr(slave, &t);
    printf("canonical %d echo %d\n", !!(t.c_lflag & ICANON), !!(t.c_lflag & ECHO));
    SAY(write(master, "line\n", 5));
    SAY(read(slave, buffer, 100));
    SAY(read(master, buffer, 100));
    cfmakeraw(&t);
    SAY(tcsetattr(slave, TCSANOW, &t));
    write(master, "a", 1);
    SAY(read(slave, buffer, 100));
    pid_t child = fork();
    if (!child) {
        struct termios cooked;
        setsid();
        ioctl(slave, TIOCSCTTY, 0);
        tcgetattr(slave, &cooked);
        cooked.c_lflag |= ISIG | ICANON;
        cooked.c_cc[VINTR] = 3;
        tcsetattr(slave, TCSANOW, &cooked);
        int mine = open("/dev/tty", O_RDWR);
        write(slave, mine > 0 && tcgetpgrp(slave) == getpid() ? "ready" : "no tty", 5);
        for (;;) pause();
    }
    int n = read(master, buffer, 100), status;
    printf("%.*s\n", n, buffer);
    write(master, "\003", 1);
    waitpid(child, &status, 0);
    printf("interrupted %d by %d\n", WIFSIGNALED(status), WTERMSIG(status));
}

int main(void) {
    pipes();
    waiting();
    moving();
    locks();
    terminals();
    return 0;
}
