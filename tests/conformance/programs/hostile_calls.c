/* Walk the whole system-call table with wild arguments: `hostile_calls SEED ROUNDS [FIRST [LAST]]`.
 *
 * Each number is called by a child of its own, interrupted by a timer and killed when even that does not help. Whatever
 * the calls do to the child, the parent must be well afterwards: it prints "alive". */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096L
#define COUNT(array) (sizeof(array) / sizeof *(array))
#define NUMBERS 480
#define PATIENCE_MS 400

static unsigned long state;
static unsigned char *good, *readonly, *hole, *noaccess, *shared, *beyond, *huge;
static long self;

static unsigned long draw(void) { /* xorshift64* */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545F4914F6CDD1DUL;
}

static long below(long n) { return (long)(draw() % (unsigned long)n); }

static inline long raw(long nr, const long *a) {
    long result;
    register long r10 __asm__("r10") = a[3];
    register long r8 __asm__("r8") = a[4];
    register long r9 __asm__("r9") = a[5];
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static long number_argument(void) {
    static const long odd[] = {
        -1, -2, -100, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x7fffffffffffffff,
        (long)0x8000000000000000UL, 0x1000, 0xfff, 0x1001, 0x200000, 0x7fffffff000, 0x40000000, 65535, 65536, 1024};
    switch (below(5)) {
    case 0: return odd[below(COUNT(odd))];
    case 1: return 1L << below(64);
    case 2: return (long)(draw() >> below(64));
    default: return below(40);
    }
}

static long pointer_argument(void) {
    static const char *const paths[] = {
        "/", "", ".", "..", "file", "dir", "link", "fifo", "/proc", "/proc/self", "/proc/self/fd/3", "/proc/self/exe",
        "/proc/self/mem", "/proc/self/maps", "/proc/self/cwd/file", "/dev/null", "/dev/tty", "/dev/ptmx", "/dev/shm/x", "new",
        "file/", "\xff\xfe", "user.name", "system.posix_acl_access", "security.x", "trusted.x"};
    switch (below(14)) {
    case 0: return 0;
    case 1: return 8;
    case 2: return (long)hole + below(PAGE);
    case 3: return (long)noaccess + below(PAGE);
    case 4: return (long)readonly + below(PAGE);
    case 5: return (long)0xffffffff80000000UL + below(PAGE);
    case 6: return (long)0x8000000000000000UL;
    case 7: return 0x7fffffffffffL - below(2 * PAGE);
    case 8: return (long)hole - 1 - below(40); /* runs into the hole */
    case 9: return (long)paths[below(COUNT(paths))];
    case 10: return (long)shared + below(4 * PAGE);
    case 12: return (long)huge + (below(3) ? 0 : draw() & ((1L << 40) - 1));
    case 11: return (long)beyond + below(4 * PAGE); /* its file has been cut off */
    default: return (long)good + (below(PAGE) & (below(2) ? ~7L : ~0L));
    }
}

static long argument(void) {
    switch (below(4)) {
    case 0: return number_argument();
    case 1: return below(30); /* most descriptors are here */
    default: return pointer_argument();
    }
}

static void spoil(unsigned char *bytes, long size) {
    for (long i = 0; i < size; i += 8) {
        unsigned long word = below(3) ? (unsigned long)argument() : draw();
        if (below(4) == 0) word = (unsigned long)below(100) | (unsigned long)below(100) << 32;
        memcpy(bytes + i, &word, 8);
    }
}

static void open_some(void) {
    int pair[2], null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct itimerspec often = {{0, 1000000}, {0, 1000000}};
    sigset_t some;
    open("file", O_RDWR | O_CREAT, 0644);
    open("dir", O_RDONLY | O_DIRECTORY);
    open("file", O_PATH);
    pipe(pair);
    fcntl(pair[1], F_SETFL, O_NONBLOCK);
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair);
    int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    bind(server, (struct sockaddr *)&here, sizeof here);
    listen(server, 5);
    socket(AF_INET, SOCK_DGRAM, 0);
    socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socket(AF_NETLINK, SOCK_RAW, 0);
    eventfd(1, EFD_NONBLOCK);
    int poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(poller, EPOLL_CTL_ADD, server, &event);
    timerfd_settime(timerfd_create(CLOCK_MONOTONIC, 0), 0, &often, NULL);
    sigemptyset(&some);
    sigaddset(&some, SIGUSR1);
    signalfd(-1, &some, SFD_NONBLOCK);
    inotify_init1(IN_NONBLOCK);
    syscall(SYS_memfd_create, "x", 2u);
    open("/proc/self", O_RDONLY | O_DIRECTORY);
    open("/proc/self/maps", O_RDONLY);
    open("/proc/self/mem", O_RDWR);
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    unlockpt(terminal);
    open(ptsname(terminal), O_RDWR | O_NOCTTY | O_NONBLOCK);
    syscall(SYS_pidfd_open, getpid(), 0);
    open("/dev/zero", O_RDWR);
    open("fifo", O_RDWR | O_NONBLOCK);
}

static void make_memory(void) {
    unsigned char *area = mmap(0, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    good = area;
    hole = area + 3 * PAGE;
    munmap(hole, PAGE);
    readonly = area + 6 * PAGE;
    spoil(good, 3 * PAGE);
    spoil(readonly, PAGE);
    mprotect(readonly, PAGE, PROT_READ);
    noaccess = area + 8 * PAGE;
    mprotect(noaccess, PAGE, PROT_NONE);
    huge = mmap(0, 1L << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    shared = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    spoil(shared, 4 * PAGE);
    int file = open("cut", O_RDWR | O_CREAT | O_TRUNC, 0644);
    ftruncate(file, 4 * PAGE);
    beyond = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    ftruncate(file, PAGE / 2);
    close(file);
}

static void interrupt(int signo) { (void)signo; }

static void spoil_context(int signo, siginfo_t *info, void *context) {
    ucontext_t *frame = context;
    (void)signo, (void)info;
    unsigned char *bytes = context;
    switch (below(4)) {
    case 0: spoil(bytes, sizeof *frame & ~7UL); break;
    case 1: frame->uc_mcontext.gregs[below(NGREG)] = argument(); break;
    case 2: frame->uc_mcontext.fpregs = (void *)pointer_argument(); break;
    default: spoil((unsigned char *)frame->uc_mcontext.fpregs + below(64) * 8, 128); break;
    }
}

static void wild_frames(int rounds) {
    struct sigaction action = {.sa_sigaction = spoil_context, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR2, &action, NULL);
    for (int i = 0; i < rounds; i++) raise(SIGUSR2);
    long top = (long)good + (below(2 * PAGE) & ~7L);
    __asm__ volatile("mov %0, %%rsp\n\tmov $15, %%eax\n\tsyscall\n\tud2" : : "r"(top));
}

static int sends_signals(long nr) {
    return nr == SYS_kill || nr == SYS_tkill || nr == SYS_tgkill || nr == SYS_rt_sigqueueinfo ||
           nr == SYS_rt_tgsigqueueinfo || nr == SYS_pidfd_send_signal;
}

static void tame(long nr, long *a) {
    static const long signals[] = {0, 65, -1, SIGWINCH, 1L << 40};
    if (sends_signals(nr)) a[nr == SYS_tgkill || nr == SYS_rt_tgsigqueueinfo ? 2 : 1] = signals[below(COUNT(signals))];
    if (nr == SYS_prlimit64 && below(2)) a[0] = 0;
    if (nr == SYS_prlimit64 && a[0] > 0) a[2] = 0; /* not the parent's limits */
}

static void be_hostile(long nr, int rounds) {
    struct sigaction action = {.sa_handler = interrupt};
    struct itimerval often = {{0, 8000}, {0, 8000}};
    for (int signo = 1; signo < 65; signo++) signal(signo, SIG_DFL);
    sigaction(SIGALRM, &action, NULL);
    setsid();
    setitimer(ITIMER_REAL, &often, NULL);
    self = syscall(SYS_gettid);
    if (nr == SYS_rt_sigreturn) wild_frames(rounds);
    for (int i = 0; i < rounds; i++) {
        long a[6], none[6] = {0};
        for (int j = 0; j < 6; j++) a[j] = argument();
        if (below(2)) a[0] = below(30);
        tame(nr, a);
        raw(nr, a);
        if (raw(SYS_gettid, none) != self) raw(SYS_exit, none); /* a child or thread it has made */
    }
    _exit(0);
}

static void wait_for(pid_t child, long nr) {
    for (int waited = 0; waited < PATIENCE_MS * 5; waited++) {
        pid_t found = waitpid(child, NULL, WNOHANG);
        if (found == child || (found < 0 && errno == ECHILD)) return;
        usleep(waited < 50 ? 200 : 1000);
        if (waited == PATIENCE_MS) kill(child, SIGKILL);
    }
    printf("call %ld: child %d does not die\n", nr, child);
}

int main(int argc, char **argv) {
    unsigned long seed = argc > 1 ? strtoul(argv[1], 0, 0) : 1;
    int rounds = argc > 2 ? atoi(argv[2]) : 20;
    long first = argc > 3 ? atol(argv[3]) : 0, last = argc > 4 ? atol(argv[4]) : argc > 3 ? first : NUMBERS;
    setvbuf(stdout, NULL, _IOLBF, 0);
    mkdir("dir", 0755);
    mkfifo("fifo", 0644);
    symlink("file", "link");
    state = seed * 2654435761UL + 88172645463325252UL;
    make_memory();
    for (int signo = 1; signo < 65; signo++)
        if (signo != SIGCHLD) signal(signo, SIG_IGN);
    for (long nr = first; nr <= last; nr++) {
        state = (seed << 20 | (unsigned long)nr) * 2654435761UL + 88172645463325252UL;
        if (getenv("HOSTILE_TELL")) fprintf(stderr, "call %ld\n", nr);
        pid_t child = fork();
        if (child < 0) { perror("fork"); continue; }
        if (child == 0) {
            open_some();
            be_hostile(nr, rounds);
        }
        wait_for(child, nr);
    }
    int status, pair[2];
    char text[5] = "";
    pipe(pair);
    pid_t child = fork();
    if (child == 0) {
        write(pair[1], "well", 4);
        _exit(7);
    }
    waitpid(child, &status, 0);
    read(pair[0], text, 4);
    printf("%s %s\n", WEXITSTATUS(status) == 7 ? "alive and" : "ill, not", text);
    return 0;
}
