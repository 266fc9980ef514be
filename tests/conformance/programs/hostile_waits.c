/* Never end: `hostile_waits KIND`. Says "ready" and then computes or waits, deaf to every signal that can be blocked. */
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int ends[2];

static void *loop(void *unused) {
    for (volatile long i = 0;; i++) {}
    return unused;
}

static void wait_in_read(void) { char byte; read(ends[0], &byte, 1); }

static void wait_in_write(void) {
    static char block[65536];
    for (;;) write(ends[1], block, sizeof block);
}

static void wait_in_futex(void) { int word = 0; syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL); }

static void wait_in_sleep(void) { struct timespec long_time = {1000, 0}; nanosleep(&long_time, NULL); }

static void wait_in_poll(void) { struct pollfd one = {ends[0], POLLIN, 0}; poll(&one, 1, -1); }

static void wait_in_epoll(void) {
    struct epoll_event event = {.events = EPOLLIN};
    int fd = epoll_create1(0);
    epoll_ctl(fd, EPOLL_CTL_ADD, ends[0], &event);
    epoll_wait(fd, &event, 1, -1);
}

static void wait_for_child(void) {
    if (!fork()) for (;;) pause();
    wait(NULL);
}

static void wait_for_vfork(void) {
    if (!vfork()) {
        execl("/proc/self/exe", "hostile_waits", "sleep", (char *)NULL);
        _exit(1);
    }
    for (;;) pause();
}

static void wait_in_vfork(void) { if (!vfork()) for (;;) pause(); }

static void wait_in_accept(void) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0hostile"};
    bind(fd, (struct sockaddr *)&name, sizeof name);
    listen(fd, 1);
    accept(fd, NULL, NULL);
}

static void wait_for_lock(void) {
    int one = open("/tmp/lock", O_RDWR | O_CREAT, 0600), two = open("/tmp/lock", O_RDWR);
    flock(one, LOCK_EX);
    flock(two, LOCK_EX);
}

static void wait_for_fifo(void) {
    mkfifo("/tmp/fifo", 0600);
    open("/tmp/fifo", O_RDONLY);
}

static void wait_for_signal(void) {
    sigset_t none;
    sigfillset(&none);
    for (;;) sigsuspend(&none);
}

static void be_stopped(void) { raise(SIGSTOP); }

static void wait_in_threads(void) {
    pthread_t thread;
    for (int i = 0; i < 4; i++) pthread_create(&thread, NULL, loop, NULL);
    pthread_join(thread, NULL);
}

static void call_without_end(void) { for (;;) syscall(SYS_getppid); }

static void fault_without_end(void) {
    for (;;) {
        pid_t child = fork();
        if (!child) *(volatile int *)8 = 1;
        waitpid(child, NULL, 0);
    }
}

static const struct { const char *name; void (*wait)(void); } kinds[] = {
    {"read", wait_in_read}, {"write", wait_in_write}, {"futex", wait_in_futex}, {"sleep", wait_in_sleep},
    {"poll", wait_in_poll}, {"epoll", wait_in_epoll}, {"wait4", wait_for_child}, {"exec", wait_for_vfork},
    {"vfork", wait_in_vfork}, {"accept", wait_in_accept}, {"flock", wait_for_lock}, {"fifo", wait_for_fifo},
    {"signal", wait_for_signal}, {"stop", be_stopped}, {"threads", wait_in_threads}, {"calls", call_without_end},
    {"faults", fault_without_end},
};

int main(int argc, char **argv) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    puts("ready");
    fflush(stdout);
    pipe(ends);
    for (unsigned i = 0; argc > 1 && i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].name, argv[1]))
            for (;;) kinds[i].wait();
    loop(NULL);
}
