/* /proc of one's own process: links that lead to the thing itself, texts that agree with the calls, what is refused. */
#include "probe.h"
#include <dirent.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/vfs.h>

static char text[1 << 20];

static long slurp(const char *path) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) return -1;
    long size = 0, n;
    while ((n = read(fd, text + size, sizeof text - 1 - size)) > 0) size += n;
    text[size] = 0;
    close(fd);
    return size;
}

static void links(void) {
    char a[PATH_MAX] = {0}, b[PATH_MAX] = {0}, path[64];
    readlink("/proc/self", a, sizeof a);
    printf("self is us %d\n", atoi(a) == getpid());
    sprintf(b, "%d/task/%d", getpid(), gettid());
    memset(a, 0, sizeof a);
    readlink("/proc/thread-self", a, sizeof a);
    printf("thread-self %d\n", !strcmp(a, b));
    memset(a, 0, sizeof a);
    readlink("/proc/self/cwd", a, sizeof a);
    printf("cwd %d\n", !strcmp(a, getcwd(b, sizeof b)));
    memset(a, 0, sizeof a);
    readlink("/proc/self/exe", a, sizeof a);
    printf("exe %s\n", strrchr(a, '/'));
    struct stat s1, s2;
    SAY(stat("/proc/self/exe", &s1));
    stat(a, &s2);
    printf("same program %d\n", s1.st_ino == s2.st_ino);
    int fd = open("gone", O_RDWR | O_CREAT, 0600);
    write(fd, "still here", 10);
    unlink("gone");
    sprintf(path, "/proc/self/fd/%d", fd);
    memset(a, 0, sizeof a);
    SAY(readlink(path, a, sizeof a) > 0);
    printf("deleted %d\n", strstr(a, "/gone (deleted)") != 0);
    int again = open(path, O_RDONLY);
    SAY(read(again, text, 100));
    SAY(lseek(fd, 0, SEEK_CUR));
    SAY(open("/proc/self/fd/999", O_RDONLY));
    SAY(open(path, O_RDONLY | O_NOFOLLOW));
    struct stat link;
    lstat(path, &link);
    printf("link mode %o\n", link.st_mode);
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    fstat(pair[0], &s1);
    sprintf(path, "/proc/self/fd/%d", pair[0]);
    sprintf(b, "socket:[%lu]", s1.st_ino);
    memset(a, 0, sizeof a);
    readlink(path, a, sizeof a);
    printf("socket %d\n", !strcmp(a, b));
    SAY(open(path, O_RDWR));
    pipe(pair);
    write(pair[1], "through", 7);
    sprintf(path, "/proc/self/fd/%d", pair[0]);
    again = open(path, O_RDONLY);
    SAY(read(again, text, 3));
    SAY(read(pair[0], text, 9));
}

static void texts(void) {
    char name[32], *at;
    int pid, ppid, pgrp, session;
    char state;
    prctl(PR_SET_NAME, "a b) c");
    slurp("/proc/self/stat");
    at = strrchr(text, ')');
    sscanf(text, "%d", &pid);
    sscanf(at + 1, " %c %d %d %d", &state, &ppid, &pgrp, &session);
    printf("stat %d %c %d %d %d\n", pid == getpid(), state, ppid == getppid(), pgrp == getpgrp(), session == getsid(0));
    int words = 0;
    for (char *word = strtok(at + 1, " \n"); word; word = strtok(0, " \n")) words++;
    printf("words %d\n", words);
    slurp("/proc/self/comm");
    printf("comm %s", text);
    FILE *comm = fopen("/proc/self/comm", "w");
    fputs("renamed-to-a-long-name", comm);
    SAY(fclose(comm));
    prctl(PR_GET_NAME, name);
    printf("name %s\n", name);
    slurp("/proc/self/status");
    static const char *shown[] = {"Name", "State", "Threads", "Umask", "SigPnd", "SigBlk", "SigIgn", "SigCgt", "TracerPid"};
    for (at = strtok(text, "\n"); at; at = strtok(0, "\n"))
        for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
            if (!strncmp(at, shown[i], strlen(shown[i]))) puts(at);
    long size = slurp("/proc/self/cmdline");
    printf("cmdline ends %d\n", size > 0 && !text[size - 1]);
    setenv("NEW", "x", 1);
    slurp("/proc/self/environ");
    printf("environ %d\n", strncmp(text, "", 1) != 0);
    void *map = mmap(0, 3 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sprintf(name, "%lx-", (long)map);
    slurp("/proc/self/maps");
    printf("maps %d %d %d %d %d\n", strstr(text, "[stack]") != 0, strstr(text, "[heap]") != 0, strstr(text, "[vdso]") != 0,
           strstr(text, "/proc_files") != 0, strstr(text, "libc.so.6") != 0);
    munmap(map, 3 * PAGE);
    long pages[7];
    slurp("/proc/self/statm");
    printf("statm %d\n", sscanf(text, "%ld %ld %ld %ld %ld %ld %ld", pages, pages + 1, pages + 2, pages + 3, pages + 4, pages + 5, pages + 6));
    slurp("/proc/self/limits");
    printf("%.78s\n", text);
    slurp("/proc/self/oom_score_adj");
    printf("adj %s", text);
    int fd = open("/proc/self/oom_score_adj", O_RDWR);
    SAY(write(fd, "500", 3));
    SAY(write(fd, "5000", 4));
    SAY(pread(fd, text, 10, 0));
    close(fd);
}

static void whole(void) {
    static const char *files[] = {"cpuinfo", "meminfo", "stat", "uptime", "loadavg", "version", "filesystems", "mounts", "vmstat",
        "self/mountinfo", "self/auxv", "self/cgroup", "self/oom_score", "self/wchan", "self/loginuid", "self/io", "self/smaps",
        "net/tcp", "net/unix", "net/dev", "sys/kernel/hostname", "sys/kernel/osrelease", "sys/kernel/ostype",
        "sys/kernel/pid_max", "sys/kernel/random/uuid", "sys/kernel/random/boot_id", "sys/kernel/random/entropy_avail",
        "sys/kernel/overflowuid", "sys/kernel/ngroups_max", "sys/kernel/cap_last_cap", "sys/kernel/threads-max",
        "sys/vm/overcommit_memory", "sys/vm/max_map_count", "sys/vm/mmap_min_addr", "sys/fs/file-max", "sys/fs/nr_open",
        "sys/fs/pipe-max-size", "sys/net/core/somaxconn", "nothing", "self/nothing", "99999999/stat", "00001/stat"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[99];
        sprintf(path, "/proc/%s", files[i]);
        long size = slurp(path);
        printf("%s %d\n", files[i], size > 0 ? 1 : (int)size);
    }
    struct statfs fs;
    SAY(statfs("/proc/self", &fs));
    printf("magic %lx\n", (long)fs.f_type);
    struct stat st;
    SAY(stat("/proc/self/stat", &st));
    printf("%o %ld\n", st.st_mode, (long)st.st_size);
    SAY(mkdir("/proc/x", 0755) == 0);
    SAY(unlink("/proc/version") == 0);
    SAY(open("/proc/self/stat/x", O_RDONLY));
    SAY(chdir("/proc/self/task"));
    printf("%d\n", strstr(getcwd(text, sizeof text), "/task") != 0);
    DIR *d = opendir(".");
    int count = 0;
    for (struct dirent *e; (e = readdir(d));) count += e->d_name[0] != '.';
    printf("tasks %d\n", count);
    closedir(d);
    d = opendir("/proc/self/fd");
    count = 0;
    for (struct dirent *e; (e = readdir(d));) count += e->d_type == DT_LNK;
    printf("links %d\n", count > 3);
    SAY(openat(dirfd(d), "0", O_PATH) > 0);
    SAY(access("/proc/self/exe", X_OK));
    int fd = open("/proc/uptime", O_RDONLY);
    double first, second;
    SAY(read(fd, text, 100) > 0);
    sscanf(text, "%lf", &first);
    usleep(30000);
    SAY(lseek(fd, 0, SEEK_SET));
    read(fd, text, 100);
    sscanf(text, "%lf", &second);
    printf("fresh %d\n", second > first);
}

int main(void) {
    links();
    texts();
    whole();
}
