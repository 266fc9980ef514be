/* Take as much of one resource as there is, in a child: `hostile_bombs KIND`. The parent must be well afterwards.
 *
 * Prints how the child ended, then "alive" once a fork, a pipe and a mapping work again. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096L
#define MIB (1L << 20)
#define MFD_SEALABLE 2u

static char block[1 << 16];

static void end(const char *what) {
    printf("%s: %s\n", what, strerrorname_np(errno));
    fflush(stdout);
    _exit(0);
}

static void more_descriptors(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void fill(int fd, const char *what) {
    for (;;)
        if (write(fd, block, sizeof block) < 0) end(what);
}

static void bomb_malloc(void) {
    for (;;) {
        char *piece = malloc(MIB);
        if (!piece) end("malloc");
        memset(piece, 1, MIB);
    }
}

static void bomb_private(void) { /* reserved first, so that only touching can fail */
    char *area = mmap(0, 1L << 36, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED) end("mmap");
    for (long at = 0;; at += PAGE) area[at] = 1;
}

static void bomb_shared(void) {
    for (;;) {
        char *area = mmap(0, 16 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (area == MAP_FAILED) end("mmap");
        for (long at = 0; at < 16 * MIB; at += PAGE) area[at] = 1;
    }
}

static void bomb_copies(int later) { /* of one file, by writing to private mappings of it */
    int fd = open("/tmp/large", O_RDWR | O_CREAT, 0600);
    ftruncate(fd, 16 * MIB);
    for (;;) {
        char *area = mmap(0, 16 * MIB, later ? PROT_READ : PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
        if (area == MAP_FAILED) end("mmap");
        if (later && mprotect(area, 16 * MIB, PROT_READ | PROT_WRITE)) end("mprotect");
        for (long at = 0; at < 16 * MIB; at += PAGE) area[at] = 1;
    }
}

static void bomb_writable_copies(void) { bomb_copies(0); }

static void bomb_protected_copies(void) { bomb_copies(1); }

static void bomb_memfd(void) { fill(syscall(SYS_memfd_create, "x", 0u), "write"); }

static void bomb_sealable(void) { fill(syscall(SYS_memfd_create, "x", MFD_SEALABLE), "write"); }

static void bomb_sealables(void) { /* many of them, grown without a write */
    more_descriptors();
    for (;;) {
        int fd = syscall(SYS_memfd_create, "x", MFD_SEALABLE);
        if (fd < 0) end("memfd_create");
        if (ftruncate(fd, 16 * MIB)) end("ftruncate");
        if (fallocate(fd, 0, 0, 16 * MIB)) end("fallocate");
    }
}

static void bomb_tmpfs(void) { fill(open("/tmp/large", O_RDWR | O_CREAT, 0600), "write"); }

static void bomb_inodes(void) {
    char name[40];
    for (long i = 0;; i++) {
        snprintf(name, sizeof name, "/tmp/f%ld", i);
        int fd = open(name, O_RDWR | O_CREAT, 0600);
        if (fd < 0) end("open");
        close(fd);
    }
}

static void bomb_pipes(void) {
    int ends[2];
    more_descriptors();
    for (;;) {
        if (pipe2(ends, O_NONBLOCK)) end("pipe");
        while (write(ends[1], block, sizeof block) > 0) {}
    }
}

static void bomb_sockets(void) {
    int ends[2];
    more_descriptors();
    for (;;) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends)) end("socketpair");
        for (int i = 0; i < 2; i++)
            while (write(ends[i], block, sizeof block) > 0) {}
    }
}

static void bomb_tables(void) { /* one page in each 2 MiB: a page table for every page */
    char *area = mmap(0, 1L << 44, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED) end("mmap");
    madvise(area, 1L << 44, MADV_NOHUGEPAGE);
    for (long at = 0; at < 1L << 44; at += 1L << 30) area[at] = 1;
    for (long at = PAGE; at < 1L << 44; at += 2 * MIB) area[at] = 1;
}

static void bomb_mappings(void) {
    for (int i = 0;; i++)
        if (mmap(0, PAGE, i % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) end("mmap");
}

static void bomb_file_mappings(void) {
    int fd = open("/proc/self/exe", O_RDONLY);
    if (fd < 0) end("open");
    for (int i = 0;; i++)
        if (mmap(0, PAGE, PROT_READ, i % 2 ? MAP_PRIVATE : MAP_SHARED, fd, 0) == MAP_FAILED) end("mmap");
}

static void *idle(void *unused) {
    (void)unused;
    for (;;) pause();
    return NULL;
}

static void bomb_threads(void) {
    pthread_t thread;
    for (;;)
        if ((errno = pthread_create(&thread, NULL, idle, NULL))) end("pthread_create");
}

static void bomb_forks(void) {
    for (;;) {
        pid_t child = fork();
        if (child < 0) {
            int error = errno;
            signal(SIGTERM, SIG_IGN);
            kill(0, SIGTERM);
            while (wait(NULL) > 0) {}
            errno = error;
            end("fork");
        }
        if (!child) for (;;) pause();
    }
}

static void bomb_zombies(void) {
    for (;;) {
        pid_t child = fork();
        if (child < 0) end("fork");
        if (!child) _exit(0);
    }
}

static void bomb_descriptors(void) {
    while (open("/dev/null", O_RDONLY) >= 0) {}
    end("open");
}

static void bomb_all_descriptors(void) { /* in several processes, so that no limit of one process holds */
    more_descriptors();
    for (int i = 0; i < 3; i++)
        if (!fork()) {
            while (open("/dev/null", O_RDONLY) >= 0) {}
            pid_t child = fork();
            if (child == 0) _exit(0);
            if (child > 0) waitpid(child, NULL, 0);
            sleep(1);
            _exit(0);
        }
    while (wait(NULL) > 0) {}
    errno = EMFILE;
    end("open");
}

static void bomb_timers(void) {
    timer_t timer;
    while (!timer_create(CLOCK_MONOTONIC, NULL, &timer)) {}
    end("timer_create");
}

static void bomb_numbers(void) { /* unknown system calls must not be remembered one by one */
    for (long nr = 1000; nr < 6000; nr++) syscall(nr);
    errno = ENOSYS;
    end("syscall");
}

static void bomb_proc(void) { /* files of /proc have no size that could be changed */
    int fd = open("/proc/self/maps", O_RDONLY), text = open("/proc/self/comm", O_RDWR), zero = open("/dev/zero", O_RDONLY);
    for (int i = 0; i < 2; i++, fd = text) {
        if (!fallocate(fd, 0, 0, 1L << 35)) end("fallocate worked");
        if (!ftruncate(fd, 1L << 35)) end("ftruncate worked");
        if (sendfile(fd, zero, NULL, 1L << 30) > 0) end("sendfile worked");
        if (copy_file_range(open("/proc/self/exe", O_RDONLY), NULL, fd, NULL, 1L << 30, 0) > 0) end("copy_file_range worked");
    }
    errno = EINVAL;
    end("grow");
}

static const struct {
    const char *name;
    void (*explode)(void);
} bombs[] = {
    {"malloc", bomb_malloc},     {"private", bomb_private},   {"shared", bomb_shared},
    {"memfd", bomb_memfd},       {"sealable", bomb_sealable}, {"sealables", bomb_sealables},
    {"tmpfs", bomb_tmpfs},       {"inodes", bomb_inodes},     {"pipes", bomb_pipes},
    {"sockets", bomb_sockets},   {"tables", bomb_tables},     {"mappings", bomb_mappings},
    {"file-mappings", bomb_file_mappings}, {"threads", bomb_threads}, {"forks", bomb_forks},
    {"zombies", bomb_zombies},   {"descriptors", bomb_descriptors}, {"all-descriptors", bomb_all_descriptors},
    {"copies", bomb_writable_copies}, {"copies-later", bomb_protected_copies},
    {"proc", bomb_proc},
    {"timers", bomb_timers},     {"numbers", bomb_numbers},
};

static void explode(const char *name) {
    setpgid(0, 0);
    for (unsigned i = 0; i < sizeof bombs / sizeof *bombs; i++)
        if (!strcmp(bombs[i].name, name)) {
            bombs[i].explode();
            _exit(0);
        }
    _exit(99);
}

static int is_well(void) {
    int ends[2], status;
    char text[8] = "";
    if (pipe(ends)) return 0;
    pid_t child = fork();
    if (child < 0) return 0;
    if (!child) _exit(write(ends[1], "well", 4) == 4 ? 7 : 8);
    if (waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 7) return 0;
    if (read(ends[0], text, 4) != 4 || strcmp(text, "well")) return 0;
    char *page = mmap(0, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return 0;
    memset(page, 1, 64 * PAGE);
    close(ends[0]);
    close(ends[1]);
    return 1;
}

int main(int argc, char **argv) {
    int status;
    if (argc < 2) return 2;
    memset(block, 1, sizeof block);
    pid_t child = fork();
    if (!child) explode(argv[1]);
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) printf("killed: %s\n", sigabbrev_np(WTERMSIG(status)));
    else if (WEXITSTATUS(status)) printf("exit code %d\n", WEXITSTATUS(status));
    unlink("/tmp/large");
    puts(is_well() ? "alive" : "ill");
    return 0;
}
