/* Calls on files whose answers are easy to get nearly right: limits, partial transfers, FIFOs, openat2, close_range. */
#include "probe.h"
#include <dirent.h>
#include <linux/close_range.h>
#include <linux/openat2.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <sys/time.h>
#include <utime.h>

static char *edge; /* the last byte before memory that is not there */

static void partial(void) {
    int f = open("data", O_RDWR | O_CREAT | O_TRUNC, 0644), p[2];
    char text[10000];
    memset(text, 'a', sizeof text);
    SAY(write(f, text, sizeof text));
    lseek(f, 0, SEEK_SET);
    SAY(read(f, edge - 100, 5000));
    SAY(lseek(f, 0, SEEK_CUR));
    SAY(read(f, edge, 1));
    SAY(read(f, (void *)-4096L, 1));
    SAY(read(f, edge - 100, -1L));
    SAY(write(f, edge - 7, 100));
    SAY(write(f, edge, 100));
    lseek(f, 0, SEEK_END);
    SAY(read(f, edge, 1));
    SAY(pread(f, edge - 10, 100, 0));
    SAY(pwrite(f, edge - 10, 100, 20000));
    SAY(pread(f, text, 1, -1));
    SAY(lseek(f, 0, SEEK_END));
    struct iovec v[3] = {{text, 5}, {edge - 3, 3}, {edge, 9}};
    lseek(f, 0, SEEK_SET);
    SAY(readv(f, v, 3));
    SAY(writev(f, v, 3));
    SAY(readv(f, v, -1));
    SAY(readv(f, v, 1025));
    SAY(readv(f, 0, 1));
    SAY(readv(f, v, 0));
    v[1].iov_len = -1L;
    SAY(readv(f, v, 2));
    pipe(p);
    SAY(write(p[1], "hello", 5));
    SAY(read(p[0], edge - 10, 100));
    SAY(write(p[1], edge - 3, 100));
    SAY(read(p[1], text, 1));
    SAY(write(p[0], text, 1));
    SAY(read(p[0], text, 0));
    SAY(pread(p[0], text, 1, 0));
    SAY(lseek(p[0], 0, SEEK_CUR));
    SAY(preadv2(f, v, 1, -1, 0));
    SAY(preadv2(f, v, 1, 0, RWF_NOWAIT * 0 | 0x1000));
    int directory = open(".", O_RDONLY);
    SAY(read(directory, text, 1));
    SAY(write(directory, text, 1));
    int path = open("data", O_PATH);
    SAY(read(path, text, 1));
    SAY(fcntl(path, F_GETFL) & O_PATH);
    SAY(fchmod(path, 0600));
    SAY(ioctl(path, FIONREAD, text));
    SAY(ftruncate(path, 1));
    close(f), close(path), close(directory), close(p[0]), close(p[1]);
}

static void on_signal(int number) { printf("signal %d\n", number); }

static void limits(void) {
    struct rlimit l;
    signal(SIGXFSZ, on_signal);
    signal(SIGPIPE, on_signal);
    int f = open("limited", O_RDWR | O_CREAT | O_TRUNC, 0644);
    getrlimit(RLIMIT_FSIZE, &l);
    l.rlim_cur = 100;
    setrlimit(RLIMIT_FSIZE, &l);
    char text[300] = "";
    SAY(write(f, text, 60));
    SAY(write(f, text, 60));
    SAY(write(f, text, 60));
    SAY(pwrite(f, text, 60, 90));
    SAY(ftruncate(f, 100));
    SAY(ftruncate(f, 101));
    SAY(fallocate(f, 0, 0, 101));
    l.rlim_cur = l.rlim_max;
    setrlimit(RLIMIT_FSIZE, &l);
    int p[2];
    pipe(p);
    close(p[0]);
    SAY(write(p[1], "x", 1));
    struct iovec v = {text, 5};
    SAY(writev(p[1], &v, 1));
    SAY(sendfile(p[1], f, 0, 5));
    close(p[1]);
    getrlimit(RLIMIT_NOFILE, &l);
    rlim_t before = l.rlim_cur;
    l.rlim_cur = 10;
    setrlimit(RLIMIT_NOFILE, &l);
    for (int i = 0; i < 12; i++) dup(f);
    SAY(dup(f));
    SAY(open("never", O_CREAT | O_RDWR, 0600));
    SAY(access("never", F_OK));
    SAY(pipe(p));
    SAY(dup2(f, 10));
    SAY(dup2(f, 9));
    SAY(fcntl(f, F_DUPFD, 10));
    SAY(fcntl(f, F_DUPFD, 5));
    l.rlim_cur = before;
    setrlimit(RLIMIT_NOFILE, &l);
    SAY(close_range(4, ~0U, CLOSE_RANGE_CLOEXEC));
    SAY(fcntl(5, F_GETFD));
    SAY(close_range(4, ~0U, 0));
    SAY(fcntl(5, F_GETFD));
    SAY(close_range(5, 4, 0));
    SAY(close_range(5, 6, 77));
    SAY(close(f));
    SAY(close(f));
}

static void *open_reader(void *path) {
    nap(80);
    int f = open(path, O_RDONLY);
    char c = 0;
    read(f, &c, 1);
    nap(80);
    printf("reader got %c\n", c);
    fflush(stdout);
    close(f);
    return 0;
}

static void fifos(void) {
    unlink("fifo");
    SAY(mkfifo("fifo", 0600));
    SAY(open("fifo", O_WRONLY | O_NONBLOCK));
    pthread_t t;
    pthread_create(&t, 0, open_reader, "fifo");
    long begun = milliseconds();
    int w = open("fifo", O_WRONLY);
    printf("writer waited %d\n", milliseconds() - begun > 50);
    SAY(write(w, "q", 1));
    pthread_join(t, 0);
    SAY(write(w, "r", 1));
    int r = open("fifo", O_RDONLY);
    char c;
    fcntl(r, F_SETFL, O_NONBLOCK);
    SAY(read(r, &c, 1));
    close(w);
    SAY(read(r, &c, 1));
    close(r);
    r = open("fifo", O_RDONLY | O_NONBLOCK);
    SAY(r >= 0);
    SAY(read(r, &c, 1));
    w = open("fifo", O_WRONLY);
    SAY(write(w, "s", 1));
    SAY(read(r, &c, 1));
    SAY(fcntl(w, F_GETFL) & (O_NONBLOCK | O_ACCMODE));
    SAY(fcntl(r, F_GETFL) & (O_NONBLOCK | O_ACCMODE));
    close(r), close(w);
    struct sigaction a = {.sa_handler = on_signal};
    sigaction(SIGALRM, &a, 0);
    ualarm(60000, 0);
    SAY(open("fifo", O_RDONLY));
    ualarm(60000, 0);
    SAY(open("fifo", O_WRONLY));
    r = open("fifo", O_RDWR);
    SAY(write(r, "abc", 3));
    char three[3];
    SAY(read(r, three, 3));
    close(r);
    if (fork() == 0) {
        int one = open("fifo", O_WRONLY);
        write(one, "z", 1);
        _exit(0);
    }
    r = open("fifo", O_RDONLY);
    SAY(read(r, &c, 1));
    SAY(read(r, &c, 1));
    wait(0);
    close(r);
}

static long how(const char *path, unsigned long flags, unsigned long mode, unsigned long resolve) {
    struct open_how h = {flags, mode, resolve};
    long f = syscall(SYS_openat2, AT_FDCWD, path, &h, sizeof h);
    if (f >= 0) close(f);
    return f < 0 ? f : 0;
}

static void resolving(void) {
    mkdir("dir", 0755);
    symlink("dir", "to_dir");
    symlink("/", "to_root");
    symlink("loop", "loop");
    close(creat("dir/inside", 0600));
    SAY(how("dir/inside", O_RDONLY, 0, 0));
    SAY(how("to_dir/inside", O_RDONLY, 0, RESOLVE_NO_SYMLINKS));
    SAY(how("to_dir/inside", O_RDONLY, 0, RESOLVE_BENEATH));
    SAY(how("to_root/tmp", O_RDONLY, 0, RESOLVE_BENEATH));
    SAY(how("dir/../../x", O_RDONLY, 0, RESOLVE_BENEATH));
    SAY(how("to_root/dir", O_RDONLY, 0, RESOLVE_IN_ROOT));
    SAY(how("dir/new", O_RDONLY, 0600, 0));
    SAY(how("dir/new", O_RDONLY | 1UL << 40, 0, 0));
    SAY(how("dir/new", O_RDWR | O_CREAT, 070000, 0));
    SAY(how("dir/new", O_RDWR | O_CREAT, 0600, 1 << 20));
    SAY(how("dir/new", O_RDWR | O_CREAT, 0600, 0));
    SAY(syscall(SYS_openat2, AT_FDCWD, "dir", "", 3));
    SAY(open("loop", O_RDONLY));
    SAY(open("loop", O_RDONLY | O_NOFOLLOW));
    SAY(open("to_dir", O_RDONLY | O_NOFOLLOW));
    SAY(open("to_dir", O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    SAY(open("data", O_RDONLY | O_DIRECTORY));
    SAY(open("data/x", O_RDONLY));
    SAY(open("", O_RDONLY));
    SAY(open("dir", O_WRONLY));
    SAY(open("dir", O_RDWR | O_CREAT, 0600));
    SAY(open("data", O_CREAT | O_EXCL | O_WRONLY, 0600));
    SAY(open("to_dir", O_CREAT | O_EXCL | O_WRONLY, 0600));
    SAY(openat(99, "data", O_RDONLY));
    SAY(openat(99, "", O_RDONLY));
    SAY(open((char *)1, O_RDONLY));
    char long_name[5000];
    memset(long_name, 'n', sizeof long_name);
    long_name[4999] = 0;
    SAY(open(long_name, O_RDONLY));
    long_name[300] = 0;
    SAY(open(long_name, O_RDONLY));
    SAY(mkdir("loop/x", 0700));
    SAY(stat("loop", &(struct stat){0}));
    SAY(lstat("loop", &(struct stat){0}));
    int temporary = open(".", O_TMPFILE | O_RDWR, 0600);
    if (temporary < 0) printf("no O_TMPFILE here\n");
    else close(temporary);
}

static void identity(void) {
    struct stat s;
    struct statx x;
    umask(027);
    int f = open("mode", O_CREAT | O_RDWR, 0777);
    fstat(f, &s);
    printf("mode %o size %ld links %ld\n", s.st_mode, (long)s.st_size, (long)s.st_nlink);
    SAY(statx(f, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x));
    printf("same %d %d %o\n", x.stx_ino == s.st_ino, x.stx_mtime.tv_nsec == s.st_mtim.tv_nsec, x.stx_mode);
    SAY(statx(f, "", 0, STATX_BASIC_STATS, &x));
    SAY(statx(f, "", AT_EMPTY_PATH, 1U << 31, &x));
    mkdir("made", 0777);
    mknod("node", S_IFREG | 0666, 0);
    mkfifo("made/fifo", 0666);
    stat("made", &s), printf("%o\n", s.st_mode);
    stat("node", &s), printf("%o\n", s.st_mode);
    stat("made/fifo", &s), printf("%o\n", s.st_mode);
    SAY(umask(022));
    SAY(utimes("node", (struct timeval[]){{1, 2}, {3, 4}}));
    stat("node", &s), printf("%ld.%ld %ld.%ld\n", s.st_atim.tv_sec, s.st_atim.tv_nsec, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
    SAY(utimes("node", (struct timeval[]){{1, 2000000}, {3, 4}}));
    SAY(utime("node", &(struct utimbuf){7, 8}));
    stat("node", &s), printf("%ld %ld\n", s.st_atim.tv_sec, s.st_mtim.tv_sec);
    SAY(futimens(f, (struct timespec[]){{5, 6}, {0, UTIME_OMIT}}));
    fstat(f, &s), printf("%ld.%ld\n", s.st_atim.tv_sec, s.st_atim.tv_nsec);
    SAY(utimensat(AT_FDCWD, "absent", (struct timespec[]){{0, UTIME_OMIT}, {0, UTIME_OMIT}}, 0));
    SAY(utimensat(AT_FDCWD, "node", 0, 0x40));
    SAY(faccessat(AT_FDCWD, "node", 99, 0));
    SAY(access("node", X_OK));
    SAY(access("made/fifo/x", F_OK));
    SAY(fchmodat(AT_FDCWD, "node", 0644, 0));
    SAY(mknod("device", S_IFCHR | 0666, 0x501) == 0 || errno == EPERM);
    unlink("device");
    SAY(mknod("bad", S_IFDIR, 0));
    SAY(readlink("to_dir", (char *)&x, 2));
    SAY(readlink("to_dir", (char *)&x, 0));
    SAY(readlink("node", (char *)&x, 5));
    SAY(setxattr("node", "user.a", "12345", 5, XATTR_REPLACE));
    SAY(setxattr("node", "user.", "1", 1, 0));
    SAY(getxattr("node", "user.none", 0, 0));
    close(f);
}

static void watching(void) {
    int i = inotify_init1(IN_NONBLOCK);
    char b[4096];
    SAY(read(i, b, sizeof b));
    SAY(inotify_add_watch(i, "made", IN_ALL_EVENTS) > 0);
    SAY(inotify_add_watch(i, "absent", IN_ALL_EVENTS));
    close(creat("made/one", 0600));
    rename("made/one", "made/two");
    unlink("made/two");
    ssize_t n = read(i, b, sizeof b);
    for (char *at = b; at < b + n;) {
        struct inotify_event *e = (void *)at;
        printf("event %x %s\n", e->mask, e->len ? e->name : "");
        at += sizeof *e + e->len;
    }
    SAY(read(i, b, 3));
    SAY(inotify_rm_watch(i, 77));
    SAY(inotify_rm_watch(0, 1));
    close(i);
    int e = eventfd(3, EFD_NONBLOCK | EFD_SEMAPHORE);
    SAY(read(e, b, 8));
    SAY(b[0]);
    SAY(read(e, b, 7));
    SAY(read(e, b, 4096));
    SAY(read(e, b, 8));
    SAY(read(e, b, 8));
    SAY(write(e, "\377\377\377\377\377\377\377\377", 8));
    SAY(write(e, "\376\377\377\377\377\377\377\377", 8));
    SAY(write(e, "\1\0\0\0\0\0\0\0", 8));
    SAY(lseek(e, 0, SEEK_SET));
    SAY(pread(e, b, 8, 0));
    SAY(eventfd(0, 77));
    close(e);
    int m = memfd_create("name", MFD_ALLOW_SEALING);
    SAY(ftruncate(m, 100));
    SAY(fcntl(m, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_WRITE));
    SAY(fcntl(m, F_GET_SEALS));
    SAY(ftruncate(m, 50));
    SAY(write(m, b, 10));
    int plain = memfd_create("plain", 0);
    SAY(fcntl(plain, F_GET_SEALS));
    SAY(fcntl(plain, F_ADD_SEALS, F_SEAL_GROW));
    SAY(fcntl(0, F_GET_SEALS));
    SAY(memfd_create("x", 0x40));
    close(m), close(plain);
}

static void entries(void) {
    mkdir("many", 0755);
    char name[40];
    for (int i = 0; i < 300; i++) sprintf(name, "many/file-number-%d", i), close(creat(name, 0600));
    DIR *d = opendir("many");
    int count = 0, types = 0;
    long middle = 0;
    struct dirent *e;
    while ((e = readdir(d))) {
        count++, types += e->d_type == DT_REG;
        if (count == 100) middle = telldir(d);
    }
    printf("%d entries, %d files\n", count, types);
    seekdir(d, middle);
    for (count = 0; readdir(d); count++) {}
    printf("%d after the middle\n", count);
    char b[64];
    SAY(syscall(SYS_getdents64, dirfd(d), b, 0));
    rewinddir(d);
    lseek(dirfd(d), 0, SEEK_SET);
    SAY(syscall(SYS_getdents64, dirfd(d), b, 10));
    SAY(syscall(SYS_getdents64, dirfd(d), 8, 4096));
    SAY(syscall(SYS_getdents64, 0, b, 64));
    closedir(d);
    SAY(rmdir("many"));
    SAY(unlink("many"));
    SAY(rmdir("data"));
    SAY(chdir("many"));
    char here[PATH_MAX];
    SAY(syscall(SYS_getcwd, here, 3));
    SAY(strcmp(strrchr(getcwd(here, sizeof here), '/'), "/many"));
    for (int i = 0; i < 300; i++) sprintf(name, "file-number-%d", i), unlink(name);
    SAY(rmdir("../many"));
    SAY(getcwd(here, sizeof here) == 0);
    SAY(errno == ENOENT);
    SAY(creat("x", 0600));
    SAY(chdir(".."));
    SAY(syscall(SYS_renameat2, AT_FDCWD, "data", AT_FDCWD, "mode", 1));
    SAY(syscall(SYS_renameat2, AT_FDCWD, "data", AT_FDCWD, "mode", 2));
    SAY(syscall(SYS_renameat2, AT_FDCWD, "data", AT_FDCWD, "mode", 3));
    SAY(rename("data", "dir"));
    SAY(rename("dir", "dir/below"));
    SAY(rename("absent", "data"));
    SAY(link("dir", "dir2"));
    SAY(link("data", "mode"));
    SAY(symlink("", "nothing"));
    SAY(unlinkat(AT_FDCWD, "dir", 0));
    SAY(unlinkat(AT_FDCWD, "dir", 77));
}

static void sharing(void) {
    int f = open("data", O_RDWR | O_TRUNC), d = dup(f);
    write(f, "0123456789", 10);
    SAY(lseek(d, 2, SEEK_SET));
    if (fork() == 0) {
        char b[3];
        read(f, b, 3);
        fcntl(f, F_SETFL, O_APPEND);
        _exit(0);
    }
    wait(0);
    SAY(lseek(f, 0, SEEK_CUR));
    SAY(fcntl(d, F_GETFL) & O_APPEND);
    write(d, "!", 1);
    SAY(lseek(f, 0, SEEK_CUR));
    SAY(fcntl(f, F_SETFD, FD_CLOEXEC));
    SAY(fcntl(d, F_GETFD));
    SAY(fcntl(f, 999));
    SAY(fcntl(f, F_SETOWN, getpid()));
    SAY(fcntl(f, F_GETOWN) == getpid());
    int n;
    SAY(ioctl(f, FIONREAD, &n));
    SAY(ioctl(f, 0x12345678, &n));
    SAY(ioctl(99, FIONREAD, &n));
    SAY(isatty(f));
    SAY(dup3(f, f, 0));
    SAY(dup2(f, f) == f);
    SAY(dup2(99, 99));
    SAY(dup3(f, 20, 1));
    SAY(fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    SAY(fallocate(f, 0, -1, 5));
    SAY(posix_fadvise(f, 0, 0, 77));
    SAY(fsync(0) == 0 || errno == EINVAL);
    SAY(syncfs(f));
    off_t at = 1;
    int out = open("copy", O_RDWR | O_CREAT | O_TRUNC, 0600);
    SAY(sendfile(out, f, &at, 100));
    printf("at %ld\n", (long)at);
    SAY(copy_file_range(f, &at, out, 0, 10, 0));
    at = 2;
    SAY(copy_file_range(f, &at, out, 0, 5, 0));
    SAY(copy_file_range(f, &at, out, 0, 5, 1));
    SAY(lseek(out, 0, SEEK_END));
    SAY(lseek(out, 1000, SEEK_HOLE));
    SAY(lseek(out, 0, 9));
}

int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    edge = mmap(0, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    edge += PAGE;
    munmap(edge, PAGE);
    puts("-- partial"), partial();
    puts("-- limits"), limits();
    puts("-- fifos"), fifos();
    puts("-- resolving"), resolving();
    puts("-- identity"), identity();
    puts("-- watching"), watching();
    puts("-- entries"), entries();
    puts("-- sharing"), sharing();
    return 0;
}
