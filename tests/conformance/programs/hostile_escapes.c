/* Try every way out of the island: `hostile_escapes ISLAND_PID SECRET`. Prints one line for each way that worked.
 *
 * SECRET is the path of a file on the host, ISLAND_PID a process of the host. The working directory is writable. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define UP "../../../../../../../../../../../../../../../.."

static const char *secret;
static int tried;

static void refused(const char *what, long result) {
    tried++;
    if (result >= 0) printf("WORKED: %s (%ld)\n", what, result);
}

static void reading(const char *what, int fd) {
    char text[64] = "";
    tried++;
    if (fd >= 0 && read(fd, text, 63) > 0 && strstr(text, "SECRET")) printf("WORKED: %s\n", what);
    if (fd >= 0) close(fd);
}

static void paths(void) {
    char path[4096];
    static const char *const bases[] = {"", "/", "/tmp/", "/proc/", "/proc/self/root/", "/proc/self/cwd/", "/proc/1/root/", "/dev/fd/",
                                        "/proc/self/fd/0/", "/proc/self/task/../root/", "/proc/self/map_files/", "/sys/", "/dev/shm/"};
    for (unsigned i = 0; i < sizeof bases / sizeof *bases; i++) {
        snprintf(path, sizeof path, "%s" UP "%s", bases[i], secret);
        reading(path, open(path, O_RDONLY));
        snprintf(path, sizeof path, "%s%s", bases[i], secret);
        reading(path, open(path, O_RDONLY));
    }
    symlink(UP, "/tmp/up");
    symlink("/proc/self/root/" UP, "/tmp/root");
    symlink(secret, "/tmp/secret");
    symlink("/proc/self/fd/3/" UP, "/tmp/descriptor");
    snprintf(path, sizeof path, "/tmp/up%s", secret);
    reading("a relative link", open(path, O_RDONLY));
    snprintf(path, sizeof path, "/tmp/root%s", secret);
    reading("a link through /proc", open(path, O_RDONLY));
    snprintf(path, sizeof path, "/tmp/descriptor%s", secret);
    reading("a link through a descriptor", open(path, O_RDONLY));
    reading("an absolute link", open("/tmp/secret", O_RDONLY));
    refused("a hard link", link(secret, "/tmp/hard"));
    refused("a hard link across mounts", linkat(AT_FDCWD, "/bin/sh", AT_FDCWD, "/dev/shm/sh", 0));
    for (int fd = 3; fd < 1024; fd++) { /* a descriptor of the host's that was left to us */
        if (fcntl(fd, F_GETFD) < 0) continue;
        reading("a descriptor left open", openat(fd, secret + 1, O_RDONLY));
        printf("WORKED: descriptor %d is open at the start\n", fd);
    }
    char deep[2048] = "/tmp";
    for (int i = 0; i < 20; i++) {
        strcat(deep, "/d");
        mkdir(deep, 0755);
    }
    int directory = open(deep, O_RDONLY | O_DIRECTORY);
    rename("/tmp/d/d/d", "/tmp/moved");
    snprintf(path, sizeof path, UP UP "%s", secret);
    reading("above a directory that was moved", openat(directory, path, O_RDONLY));
    rmdir(deep);
    reading("above a directory that was removed", openat(directory, path, O_RDONLY));
    fchdir(directory);
    reading("above a working directory that was removed", open(path, O_RDONLY));
    chdir("/tmp");
}

static volatile int racing = 1;

static void *swap(void *unused) {
    while (racing) {
        rename("/tmp/race/a/b", "/tmp/race/b");
        rename("/tmp/race/b", "/tmp/race/a/b");
    }
    return unused;
}

static void *flip(void *unused) {
    while (racing) {
        unlink("/tmp/race/link");
        mkdir("/tmp/race/link", 0755);
        rmdir("/tmp/race/link");
        symlink(UP, "/tmp/race/link");
    }
    return unused;
}

static void race(void) {
    pthread_t one, two;
    char up[4096], through[4096];
    long end = time(NULL) + 1;
    mkdir("/tmp/race", 0755);
    mkdir("/tmp/race/a", 0755);
    mkdir("/tmp/race/a/b", 0755);
    snprintf(up, sizeof up, "../../../../.." UP "%s", secret);
    snprintf(through, sizeof through, "/tmp/race/link/" UP "%s", secret);
    pthread_create(&one, NULL, swap, NULL);
    pthread_create(&two, NULL, flip, NULL);
    while (time(NULL) <= end) {
        int directory = open("/tmp/race/a/b", O_RDONLY | O_DIRECTORY);
        if (directory < 0) directory = open("/tmp/race/b", O_RDONLY | O_DIRECTORY);
        if (directory < 0) continue;
        reading("a race of renames", openat(directory, up, O_RDONLY));
        reading("a race of links", open(through, O_RDONLY));
        close(directory);
    }
    racing = 0;
    pthread_join(one, NULL);
    pthread_join(two, NULL);
}

static void privileges(void) {
    int handle[40] = {128, 1};
    mkdir("/tmp/mnt", 0755);
    refused("mount of proc", mount("proc", "/tmp/mnt", "proc", 0, NULL));
    refused("mount of tmpfs", mount("x", "/tmp/mnt", "tmpfs", 0, NULL));
    refused("bind mount", mount("/", "/tmp/mnt", NULL, MS_BIND | MS_REC, NULL));
    refused("umount", umount2("/tmp", MNT_DETACH));
    refused("umount of proc", umount2("/proc", MNT_DETACH));
    refused("pivot_root", syscall(SYS_pivot_root, "/tmp", "/tmp/mnt"));
    refused("unshare", unshare(CLONE_NEWUSER));
    refused("unshare of mounts", unshare(CLONE_NEWNS));
    refused("setns", setns(open("/proc/1/ns/mnt", O_RDONLY), 0));
    refused("open_tree", syscall(428, AT_FDCWD, "/", 0));
    refused("fsopen", syscall(430, "tmpfs", 0));
    refused("mknod of a disk", mknod("/tmp/disk", S_IFBLK | 0600, makedev(8, 0)));
    refused("mknod of memory", mknod("/tmp/mem", S_IFCHR | 0600, makedev(1, 1)));
    refused("mknod of kvm", mknod("/tmp/kvm", S_IFCHR | 0600, makedev(10, 232)));
    refused("open of /dev/kvm", open("/dev/kvm", O_RDWR));
    refused("open of /dev/mem", open("/dev/mem", O_RDWR));
    refused("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, handle, O_RDONLY));
    refused("name_to_handle_at", syscall(SYS_name_to_handle_at, AT_FDCWD, "/", handle, handle + 30, 0));
    refused("init_module", syscall(SYS_init_module, handle, 10, ""));
    refused("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
    refused("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0 /* CAD_OFF */, 0));
    refused("bpf", syscall(SYS_bpf, 5, handle, 40));
    refused("perf_event_open", syscall(SYS_perf_event_open, handle, 0, -1, -1, 0));
    refused("keyctl", syscall(SYS_keyctl, 0, -5, 1));
    refused("io_uring_setup", syscall(SYS_io_uring_setup, 4, handle));
    refused("userfaultfd", syscall(SYS_userfaultfd, 0));
    refused("settimeofday", settimeofday(&(struct timeval){0, 0}, NULL));
    refused("swapon", syscall(SYS_swapon, "/tmp/x", 0));
    refused("iopl", syscall(SYS_iopl, 3));
}

static void processes(int island) {
    char path[64], text[64] = "";
    struct iovec local = {text, 8}, remote = {(void *)0x400000, 8};
    refused("kill of a process of the host", kill(island, 0));
    refused("kill of its group", kill(-island, 0));
    refused("tgkill of it", syscall(SYS_tgkill, island, island, 0));
    refused("rt_sigqueueinfo", syscall(SYS_rt_sigqueueinfo, island, 0, text));
    refused("ptrace attach", ptrace(PTRACE_ATTACH, island, 0, 0));
    refused("ptrace seize", ptrace(PTRACE_SEIZE, island, 0, 0));
    refused("process_vm_readv", process_vm_readv(island, &local, 1, &remote, 1, 0));
    refused("process_vm_writev", process_vm_writev(island, &local, 1, &remote, 1, 0));
    refused("pidfd_open", syscall(SYS_pidfd_open, island, 0));
    refused("prlimit of it", prlimit(island, 0, NULL, NULL));
    refused("its priority", syscall(SYS_setpriority, 0, island, 5));
    refused("its affinity", sched_setaffinity(island, 8, (void *)text));
    static const char *const files[] = {"root", "cwd", "exe", "environ", "mem", "maps", "fd/0", "cmdline", "ns/mnt", "stat"};
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", island, files[i]);
        refused(path, open(path, O_RDONLY));
    }
    refused("kcore", open("/proc/kcore", O_RDONLY));
    refused("sysrq", open("/proc/sysrq-trigger", O_WRONLY));
    refused("core_pattern", open("/proc/sys/kernel/core_pattern", O_WRONLY));
}

static void sockets(void) {
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0enisle-escape-test"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    refused("an abstract socket of the host", connect(fd, (void *)&name, sizeof(sa_family_t) + 1 + strlen(name.sun_path + 1)));
    refused("a vsock", socket(40, SOCK_STREAM, 0));
    refused("a packet socket", socket(17, SOCK_RAW, 0));
    refused("an alg socket", socket(38, SOCK_SEQPACKET, 0));
    for (int fd = 0; fd < 3; fd++) {
        refused("TIOCSTI", ioctl(fd, TIOCSTI, "x"));
        refused("TIOCLINUX", ioctl(fd, TIOCLINUX, "\2"));
        refused("TIOCCONS", ioctl(fd, TIOCCONS));
    }
}

static void change_what_is_the_callers(void) { /* standard input and the error output are the host's files */
    static const char *const names[] = {"/proc/self/fd/%d", "/dev/fd/%d", "/proc/thread-self/fd/%d"};
    struct timespec times[2] = {{1, 0}, {1, 0}};
    char name[64];
    for (int fd = 0; fd < 3; fd += 2) {
        refused("fchmod", fchmod(fd, 01457));
        refused("fchown", fchown(fd, 8, 24));
        refused("futimens", futimens(fd, times));
        refused("fsetxattr", syscall(SYS_fsetxattr, fd, "user.x", "1", 1, 0));
        refused("fremovexattr", syscall(SYS_fremovexattr, fd, "user.x"));
        for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
            snprintf(name, sizeof name, names[i], fd);
            refused("chmod", chmod(name, 01457));
            refused("chown", chown(name, 8, 24));
            refused("utimensat", utimensat(AT_FDCWD, name, times, 0));
            refused("setxattr", syscall(SYS_setxattr, name, "user.x", "1", 1, 0));
            int by_path = open(name, O_PATH), again = open(name, fd ? O_WRONLY : O_RDONLY);
            if (again < 0) printf("cannot open %s: %s\n", name, strerror(errno));
            refused("fchmod of another description", fchmod(again, 01457));
            refused("fchown of another description", fchown(again, 8, 24));
            refused("fchmodat2", syscall(452, by_path, "", 01457, AT_EMPTY_PATH));
            refused("fchownat", fchownat(by_path, "", 8, 24, AT_EMPTY_PATH));
            refused("utimensat of a path", utimensat(by_path, "", times, AT_EMPTY_PATH));
            refused("more rights", open(name, fd ? O_RDONLY : O_WRONLY));
            close(by_path);
            close(again);
        }
        refused("fchmodat2 of it", syscall(452, fd, "", 01457, AT_EMPTY_PATH));
        refused("fchownat of it", fchownat(fd, "", 8, 24, AT_EMPTY_PATH));
    }
    puts("tried");
}

static void from_where_we_are(void) { /* the caller moves the working directory away meanwhile */
    char path[4096], line[8];
    int here = open(".", O_RDONLY | O_DIRECTORY);
    puts("ready");
    read(0, line, 1);
    snprintf(path, sizeof path, UP "%s", secret);
    reading("above a directory that was moved on the host", open(path, O_RDONLY));
    reading("above a descriptor of it", openat(here, path, O_RDONLY));
    for (int up = 0; up < 20; up++) {
        chdir("..");
        reading("step by step", open(secret + 1, O_RDONLY));
        reading("step by step to a neighbour", open(strrchr(secret, '/') + 1, O_RDONLY));
    }
    puts("tried");
}

int main(int argc, char **argv) {
    char name[16] = "";
    gethostname(name, sizeof name - 1);
    if (argc < 3 || strcmp(name, "island")) return 2; /* it would do harm elsewhere */
    int island = atoi(argv[1]);
    secret = argv[2];
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 3) {
        strcmp(argv[3], "caller") ? from_where_we_are() : change_what_is_the_callers();
        return 0;
    }
    paths();
    privileges();
    processes(island);
    sockets();
    race();
    printf("tried %s\n", tried > 100 ? "many" : "few");
    if (!fork()) kill(-1, SIGKILL); /* ends us and no other */
    for (;;) pause();
}
