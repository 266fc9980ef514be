/* Record locks among processes: conflicts, splits, waits, signals, deadlocks, release on close and exit. */
#include "probe.h"
#include <sys/file.h>

static int file;

static int lock(int command, short kind, long start, long length) {
    struct flock l = {.l_type = kind, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    return fcntl(file, command, &l);
}

/* Ask in a child, which owns nothing, who holds what. */
static void show(const char *title, long from, long to) {
    printf("%s:", title);
    fflush(stdout);
    if (fork() == 0) {
        for (long at = from; at < to; at++) {
            struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
            if (fcntl(file, F_GETLK, &l)) printf(" %s", strerrorname_np(errno));
            else printf("%c", l.l_type == F_UNLCK ? '.' : l.l_type == F_RDLCK ? 'r' : 'w');
        }
        printf("\n");
        fflush(stdout);
        _exit(0);
    }
    wait(0);
}

static void on_alarm(int signal) { (void)signal; }

static void conflicts(void) {
    SAY(lock(F_SETLK, F_WRLCK, 0, 10));
    SAY(lock(F_SETLK, F_UNLCK, 3, 2));
    show("split", 0, 12);
    SAY(lock(F_SETLK, F_RDLCK, 6, 10));
    show("downgraded", 0, 18);
    SAY(lock(F_SETLK, F_WRLCK, 2, 6));
    show("joined", 0, 18);
    struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
    SAY(fcntl(file, F_GETLK, &l));
    printf("own locks are no conflict: %d\n", l.l_type == F_UNLCK);
    fflush(stdout);
    pid_t parent = getpid();
    if (fork() == 0) {
        l = (struct flock){.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
        SAY(fcntl(file, F_GETLK, &l));
        printf("%d %d %ld %ld\n", l.l_type == F_WRLCK, l.l_pid == parent, (long)l.l_start, (long)l.l_len);
        SAY(lock(F_SETLK, F_RDLCK, 9, 3));
        SAY(lock(F_SETLK, F_WRLCK, 9, 3));
        SAY(lock(F_SETLK, F_WRLCK, 100, 0));
        fflush(stdout);
        _exit(0);
    }
    wait(0);
    show("after the child's end", 0, 18);
    close(dup(file));
    show("after closing a duplicate", 0, 18);
}

static void bad(void) {
    struct flock l = {.l_type = 7, .l_whence = SEEK_SET};
    SAY(fcntl(file, F_SETLK, &l));
    l = (struct flock){.l_type = F_RDLCK, .l_whence = 9};
    SAY(fcntl(file, F_SETLK, &l));
    l = (struct flock){.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = -1};
    SAY(fcntl(file, F_SETLK, &l));
    l = (struct flock){.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = -9};
    SAY(fcntl(file, F_SETLK, &l));
    l = (struct flock){.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = LONG_MAX, .l_len = 5};
    SAY(fcntl(file, F_SETLK, &l));
    SAY(fcntl(file, F_SETLK, (void *)8));
    int readable = open("locked", O_RDONLY);
    l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
    SAY(fcntl(readable, F_SETLK, &l));
    close(readable);
}

static void waits(void) {
    int ready[2];
    pipe(ready);
    pid_t child = fork();
    if (child == 0) {
        lock(F_SETLK, F_WRLCK, 0, 5);
        write(ready[1], "x", 1);
        nap(150);
        _exit(0);
    }
    char c;
    read(ready[0], &c, 1);
    SAY(lock(F_SETLK, F_WRLCK, 4, 2));
    long begun = milliseconds();
    SAY(lock(F_SETLKW, F_WRLCK, 4, 2));
    printf("waited %d\n", milliseconds() - begun > 80);
    waitpid(child, 0, 0);
    child = fork();
    if (child == 0) {
        struct sigaction a = {.sa_handler = on_alarm};
        sigaction(SIGALRM, &a, 0);
        ualarm(100000, 0);
        SAY(lock(F_SETLKW, F_RDLCK, 5, 1));
        _exit(0);
    }
    waitpid(child, 0, 0);
    SAY(lock(F_SETLK, F_UNLCK, 0, 0));
}

static void deadlock(void) {
    int ready[2];
    pipe(ready);
    lock(F_SETLK, F_WRLCK, 0, 1);
    pid_t child = fork();
    if (child == 0) {
        lock(F_SETLK, F_WRLCK, 1, 1);
        write(ready[1], "x", 1);
        SAY(lock(F_SETLKW, F_WRLCK, 0, 1));
        _exit(0);
    }
    char c;
    read(ready[0], &c, 1);
    nap(100);
    SAY(lock(F_SETLKW, F_WRLCK, 1, 1));
    lock(F_SETLK, F_UNLCK, 0, 0);
    waitpid(child, 0, 0);
}

static void descriptions(void) {
    int other = open("locked", O_RDWR), copy = dup(file);
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};
    SAY(fcntl(file, F_OFD_SETLK, &l));
    SAY(fcntl(copy, F_OFD_SETLK, &l));
    SAY(fcntl(other, F_OFD_SETLK, &l));
    SAY(fcntl(other, F_SETLK, &l));
    SAY(fcntl(other, F_OFD_GETLK, &l));
    printf("%d %d\n", l.l_type, l.l_pid);
    l.l_pid = 1;
    SAY(fcntl(other, F_OFD_SETLK, &l));
    l = (struct flock){.l_type = F_UNLCK, .l_whence = SEEK_SET};
    SAY(fcntl(copy, F_OFD_SETLK, &l));
    SAY(flock(file, LOCK_SH));
    SAY(flock(other, LOCK_SH | LOCK_NB));
    SAY(flock(other, LOCK_EX | LOCK_NB));
    SAY(flock(copy, LOCK_UN));
    SAY(flock(other, LOCK_EX | LOCK_NB));
    if (fork() == 0) {
        nap(100);
        flock(other, LOCK_UN);
        _exit(0);
    }
    SAY(flock(file, LOCK_EX));
    wait(0);
    SAY(flock(file, 99));
    SAY(flock(99, LOCK_SH));
}

int main(void) {
    file = open("locked", O_RDWR | O_CREAT, 0600);
    conflicts();
    bad();
    waits();
    deadlock();
    descriptions();
    return 0;
}
