/* Files and directories: flags of open, offsets, links, names, times, modes, directories, statx, errors. */
#include "probe.h"
#include <dirent.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/xattr.h>

static char b[9000];

static void say_stat(const char *name) {
    struct stat s;
    if (lstat(name, &s)) printf("%s: %s\n", name, strerrorname_np(errno));
    else printf("%s: mode %o links %lu size %ld\n", name, s.st_mode, s.st_nlink, S_ISDIR(s.st_mode) ? 0 : (long)s.st_size);
}

int main(void) {
    umask(022);
    SAY(open("f", O_RDONLY));
    int f = open("f", O_CREAT | O_EXCL | O_RDWR, 0666), g;
    SAY(f);
    SAY(open("f", O_CREAT | O_EXCL | O_RDWR, 0666));
    SAY(open("f/x", O_RDONLY));
    SAY(open("nothing/x", O_CREAT | O_RDWR, 0600));
    SAY(open("f", O_DIRECTORY));
    SAY(open(".", O_RDWR));
    SAY(open(".", O_CREAT, 0600));
    SAY(write(f, "hello world", 11));
    SAY(lseek(f, -5, SEEK_END));
    SAY(read(f, b, 100));
    printf("%.5s\n", b);
    SAY(read(f, b, 1));
    SAY(lseek(f, -1, SEEK_SET));
    SAY(lseek(f, 0, 99));
    SAY(pwrite(f, "X", 1, 20000));
    SAY(lseek(f, 0, SEEK_CUR));
    SAY(pread(f, b, 10, 15000));
    SAY(pread(f, b, 10, -1));
    SAY(ftruncate(f, 5));
    SAY(ftruncate(f, -1));
    SAY(truncate("f", 30));
    say_stat("f");
    g = open("f", O_WRONLY | O_APPEND);
    SAY(lseek(g, 0, SEEK_SET));
    SAY(write(g, "appended", 8));
    SAY(lseek(g, 0, SEEK_CUR));
    SAY(read(g, b, 1));
    SAY(fcntl(g, F_GETFL) & (O_ACCMODE | O_APPEND));
    SAY(fcntl(g, F_SETFL, 0));
    SAY(fcntl(g, F_GETFL) & (O_ACCMODE | O_APPEND));
    SAY(dup2(g, 50));
    SAY(dup2(g, g) == g);
    SAY(dup3(g, g, 0));
    SAY(dup3(g, 51, O_CLOEXEC));
    SAY(fcntl(51, F_GETFD));
    SAY(fcntl(g, F_DUPFD_CLOEXEC, 60));
    SAY(fcntl(60, F_SETFD, 0));
    SAY(close(60));
    SAY(close(60));
    SAY(dup(60));
    SAY(write(60, "", 0));
    SAY(fcntl(g, 9999));
    SAY(syscall(SYS_close_range, 50, 51, 0));
    SAY(fcntl(50, F_GETFD));
    SAY(posix_fallocate(f, 0, 100000));
    SAY(fallocate(f, FALLOC_FL_KEEP_SIZE, 0, 200000));
    SAY(lseek(f, 0, SEEK_END));
    SAY(fsync(f));
    SAY(fdatasync(f));
    SAY(readv(f, (struct iovec[]){{b, 5}}, 2000));
    lseek(f, 0, SEEK_SET);
    SAY(readv(f, (struct iovec[]){{b, 3}, {b + 3, 4}}, 2));
    SAY(preadv(f, (struct iovec[]){{b, 3}, {b + 3, 4}}, 2, 1));
    SAY(pwritev(f, (struct iovec[]){{"ab", 2}, {"cd", 2}}, 2, 1));

    SAY(mkdir("d", 0777));
    SAY(mkdir("d", 0777));
    SAY(rmdir("f"));
    SAY(unlink("d"));
    SAY(link("f", "d/l"));
    SAY(symlink("d/l", "s"));
    SAY(symlink("loop", "loop"));
    SAY(symlink("", "e"));
    SAY(open("loop", O_RDONLY));
    SAY(open("s", O_RDONLY | O_NOFOLLOW));
    SAY(readlink("s", b, 2));
    SAY(readlink("f", b, 100));
    SAY(rmdir("d"));
    say_stat("f");
    say_stat("s");
    say_stat("d");
    SAY(rename("f", "d"));
    SAY(rename("d", "d/inside"));
    SAY(rename("nothing", "x"));
    SAY(rename("d/l", "renamed"));
    SAY(renameat2(AT_FDCWD, "f", AT_FDCWD, "renamed", RENAME_NOREPLACE));
    SAY(renameat2(AT_FDCWD, "s", AT_FDCWD, "d", RENAME_EXCHANGE));
    say_stat("s");
    SAY(rename("s", "d"));
    renameat2(AT_FDCWD, "s", AT_FDCWD, "d", RENAME_EXCHANGE);
    SAY(link("s", "hard-to-symlink"));
    say_stat("hard-to-symlink");
    SAY(linkat(AT_FDCWD, "s", AT_FDCWD, "followed", AT_SYMLINK_FOLLOW));
    int dir = open("d", O_RDONLY | O_DIRECTORY), path = open("f", O_PATH);
    SAY(read(path, b, 1));
    SAY(fchmod(path, 0600));
    SAY(fstat(path, (struct stat *)b));
    SAY(openat(dir, "in", O_CREAT | O_WRONLY, 0640) > 0);
    SAY(mkdirat(dir, "sub", 0700));
    SAY(faccessat(dir, "in", R_OK, 0));
    SAY(unlinkat(dir, "sub", 0));
    SAY(unlinkat(dir, "sub", AT_REMOVEDIR));
    SAY(openat(f, "x", O_RDONLY));
    SAY(fchdir(dir));
    printf("%s\n", strrchr(getcwd(b, sizeof b), '/'));
    SAY(getcwd(b, 3) != 0);
    SAY(chdir(".."));
    SAY(access("d/in", X_OK) == 0);
    SAY(chmod("d/in", 06755));
    SAY(fchmodat(AT_FDCWD, "d/in", 0444, 0));
    say_stat("d/in");
    SAY(chown("d/in", -1, -1));
    SAY(utimensat(AT_FDCWD, "d/in", (struct timespec[]){{1, 500}, {2, 600}}, 0));
    struct stat s;
    stat("d/in", &s);
    printf("times %ld.%09ld %ld.%09ld\n", s.st_atim.tv_sec, s.st_atim.tv_nsec, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
    SAY(utimensat(AT_FDCWD, "d/in", (struct timespec[]){{0, UTIME_OMIT}, {0, UTIME_NOW}}, 0));
    stat("d/in", &s);
    printf("times %ld, now %d\n", s.st_atim.tv_sec, labs(s.st_mtim.tv_sec - time(0)) < 5);
    struct statx x;
    SAY(statx(AT_FDCWD, "f", 0, STATX_ALL, &x));
    printf("statx mode %o links %u size %llu\n", x.stx_mode, x.stx_nlink, x.stx_size);
    SAY(statx(f, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x));
    SAY(statx(f, "", 0, STATX_BASIC_STATS, &x));
    SAY(open(".", O_TMPFILE | O_RDWR, 0600) > 0);
    SAY(mknod("p", S_IFIFO | 0600, 0));
    SAY(mknod("r", S_IFREG | 0600, 0));
    SAY(setxattr("f", "user.x", "value", 5, 0));
    SAY(getxattr("f", "user.x", b, 100));
    SAY(getxattr("f", "user.x", b, 2));
    SAY(getxattr("f", "user.none", b, 100));
    SAY(removexattr("f", "user.x"));

    mkdir("many", 0700);
    for (int i = 0; i < 500; i++) {
        snprintf(b, sizeof b, "many/entry-%03d", i);
        close(open(b, O_CREAT | O_WRONLY, 0600));
    }
    DIR *stream = opendir("many");
    struct dirent *entry;
    int n = 0, sum = 0, types = 0;
    long middle = 0;
    while ((entry = readdir(stream))) {
        if (++n == 250) middle = telldir(stream);
        sum += atoi(entry->d_name + (strlen(entry->d_name) > 6 ? 6 : 0));
        types += entry->d_type == DT_REG;
    }
    printf("entries %d sum %d regular %d\n", n, sum, types);
    seekdir(stream, middle);
    for (n = 0; readdir(stream);) n++;
    printf("after seeking %d\n", n);
    rewinddir(stream);
    for (n = 0; (entry = readdir(stream));) n++, entry->d_name[0] == 'e' ? unlinkat(dirfd(stream), entry->d_name, 0) : 0;
    SAY(rmdir("many"));
    SAY(syscall(SYS_getdents64, f, b, 100));
    SAY(syscall(SYS_getdents64, dir, b, 10));
    int gone = open("gone", O_CREAT | O_RDWR, 0600);
    write(gone, "still", 5);
    unlink("gone");
    SAY(pread(gone, b, 10, 0));
    fstat(gone, &s);
    printf("links %lu\n", s.st_nlink);
    snprintf(b, sizeof b, "/proc/self/fd/%d", gone);
    SAY(open(b, O_RDONLY) > 0);
    printf("%s\n", strstr((readlink(b, b + 100, 1000), b + 100), "gone (deleted)") ? "named as deleted" : "no");
    mkdir("left", 0700);
    chdir("left");
    rmdir("../left");
    SAY(open("x", O_CREAT | O_RDWR, 0600));
    SAY(getcwd(b, 100) != 0);
    SAY(chdir("/"));
    SAY(chdir("/../../.."));
    printf("%s\n", getcwd(b, 100));
    SAY(open("/dev/full", O_WRONLY) > 0);
    SAY(write(open("/dev/full", O_WRONLY), "x", 1));
    SAY(read(open("/dev/null", O_RDWR), b, 1));
    SAY(read(open("/dev/zero", O_RDWR), b, 10));
    SAY(read(open("/dev/urandom", O_RDONLY), b, 10));
    stat("/dev/null", &s);
    printf("null is %u:%u mode %o\n", major(s.st_rdev), minor(s.st_rdev), s.st_mode);
    SAY(unlink("/proc/self/status") ? -1 : 0);
    SAY(statfs("/", (struct statfs *)b));
    return 0;
}
