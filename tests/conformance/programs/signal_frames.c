/* The frame under a handler, byte by byte, and what rt_sigreturn takes back. */
#include "probe.h"
#include <cpuid.h>
#include <sys/auxv.h>
#include <ucontext.h>

static uint64_t *registers(void *context) { return (uint64_t *)((ucontext_t *)context)->uc_mcontext.gregs; }

static void frame(int n, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    uint64_t *g = registers(context);
    char *fp = (char *)u->uc_mcontext.fpregs;
    uint32_t *sw = (void *)(fp + 464);
    printf("signal %d code %d uc_flags %lx link %p\n", n, info->si_code, u->uc_flags, (void *)u->uc_link);
    printf("stack %x %zx\n", u->uc_stack.ss_flags, u->uc_stack.ss_size);
    if (n != SIGUSR1) /* a signal that was sent shows the thread's last trap, on some kernels one before the program */
        printf("trap %lx error %lx cr2 is si_addr %d ", g[REG_TRAPNO], g[REG_ERR] & ~1UL, g[REG_CR2] == (uint64_t)info->si_addr);
    printf("oldmask %lx cs gs fs ss %lx\n", g[REG_OLDMASK], g[REG_CSGSFS]);
    printf("area %ld aligned %ld marks %x %u %x %x %u tail %x\n", fp - (char *)context, (long)fp % 64, sw[0], sw[1], sw[2],
           sw[3], sw[4], *(uint32_t *)(fp + sw[4]));
    printf("present %d compacted %lx\n", (int)(*(uint64_t *)(fp + 512) & 3), *(uint64_t *)(fp + 520));
    printf("context %ld info %ld below %d\n", (long)context % 16, (char *)info - (char *)context,
           g[REG_RSP] - (uint64_t)(fp + sw[1]) >= 128 && g[REG_RSP] - (uint64_t)(fp + sw[1]) < 256);
    printf("control %x %x\n", *(uint16_t *)fp, *(uint32_t *)(fp + 24));
    fflush(stdout);
}

static sigjmp_buf back;
static void leave(int n, siginfo_t *info, void *context) { frame(n, info, context); siglongjmp(back, 1); }
static void plain(int n) { printf("signal %d\n", n), siglongjmp(back, 1); }

/* ---- what comes back ------------------------------------------------------------------------------------------ */

typedef float v8 __attribute__((vector_size(32)));
static int mode;

static void change(int n, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    uint64_t *g = registers(context);
    char *fp = (char *)u->uc_mcontext.fpregs;
    (void)n, (void)info;
    switch (mode) {
    case 0: g[REG_RAX] = 4711; break;
    case 1: g[REG_EFL] |= 0x1 | 0x3000 | 0x4000 | 0x20000 | 0x200000; break;
    case 2: *(float *)(fp + 160) = 2.5f; break;
    case 3: *(uint32_t *)(fp + 464) = 0; break;
    case 4: u->uc_mcontext.fpregs = 0; break;
    case 5: *(uint32_t *)(fp + 24) = 0xffffffff; break;
    case 6: *(uint64_t *)(fp + 520) = 1; break;
    case 7: *(uint64_t *)(fp + 512) |= 1UL << 60; break;
    case 8: u->uc_mcontext.fpregs = (void *)(fp + 8); break;
    case 9: u->uc_mcontext.fpregs = (void *)64; break;
    case 10: g[REG_RIP] = 0x8000000000000000; break;
    case 11: g[REG_RIP] = 0x1000; break;
    case 12: u->uc_sigmask.__val[0] = ~0UL; break;
    case 13: g[REG_RSP] = 0x10; break;
    case 14: *(uint64_t *)(fp + 512) &= ~2UL; break;
    case 15: sigaddset(&u->uc_sigmask, SIGUSR2); break;
    }
}

static void come_back(int which) {
    uint64_t rax = 1, flags;
    mode = which;
    printf("mode %d: ", which);
    fflush(stdout);
    if (sigsetjmp(back, 1)) return;
    float one = 1.5f, found;
    uint32_t csr;
    __asm__ volatile(
        "movaps %%xmm0, %%xmm9\n vbroadcastss %[one], %%ymm0\n"
        "mov %[tid], %%edi\n mov %[sig], %%esi\n mov $200, %%eax\n cmp %%eax, %%eax\n syscall\n"
        "pushf\n pop %[flags]\n movss %%xmm0, %[found]\n stmxcsr %[csr]\n"
        : "=&a"(rax), [flags] "=&r"(flags), [found] "=m"(found), [csr] "=m"(csr)
        : [one] "m"(one), [tid] "r"((int)syscall(SYS_gettid)), [sig] "i"(SIGUSR1)
        : "rdi", "rsi", "rcx", "r11", "xmm0", "xmm9", "memory", "cc");
    sigset_t now;
    sigprocmask(SIG_BLOCK, 0, &now);
    printf("rax %ld flags %lx xmm0 %g mxcsr %x mask %lx\n", rax, flags & ~0x4UL, found, csr, now.__val[0]);
    sigemptyset(&now);
    sigprocmask(SIG_SETMASK, &now, 0);
}

/* ---- handlers start afresh, vector state survives --------------------------------------------------------------- */

static void spoil(int n) {
    v8 fresh;
    uint32_t csr;
    uint16_t control;
    (void)n;
    __asm__ volatile("vmovups %%ymm5, %0\n stmxcsr %1\n fnstcw %2" : "=m"(fresh), "=m"(csr), "=m"(control));
    printf("in the handler: %g %g %x %x\n", fresh[0], fresh[7], csr, control);
    __asm__ volatile("vpcmpeqd %%ymm5, %%ymm5, %%ymm5\n fninit\n fldpi" ::: "xmm5");
}

static void vectors(void) {
    v8 ours = {1, 2, 3, 4, 5, 6, 7, 8}, theirs;
    uint32_t csr = 0x9fc0, after;
    double x = 0.125, y;
    __asm__ volatile("vmovups %[ours], %%ymm5\n ldmxcsr %[csr]\n fldl %[x]\n"
                     "mov %[tid], %%edi\n mov %[sig], %%esi\n mov $200, %%eax\n syscall\n"
                     "vmovups %%ymm5, %[theirs]\n stmxcsr %[after]\n fstpl %[y]\n"
                     : [theirs] "=m"(theirs), [after] "=m"(after), [y] "=m"(y)
                     : [ours] "m"(ours), [csr] "m"(csr), [x] "m"(x), [tid] "r"((int)syscall(SYS_gettid)), [sig] "i"(SIGUSR1)
                     : "rax", "rdi", "rsi", "rcx", "r11", "xmm5", "memory", "st");
    csr = 0x1f80;
    __asm__ volatile("ldmxcsr %0" ::"m"(csr));
    printf("after the handler: %g %g %g %x\n", theirs[0], theirs[7], y, after);
}

static void on_stack(int n) {
    stack_t now;
    sigaltstack(0, &now);
    printf("signal %d: flags %x size %zx, change %s\n", n, now.ss_flags, now.ss_size,
           sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, 0) ? strerrorname_np(errno) : "ok");
    if (n == SIGUSR1) raise(SIGUSR2);
}

static void alternate(void) {
    static char room[65536];
    stack_t stack = {.ss_sp = room, .ss_size = sizeof room}, old;
    struct sigaction action = {.sa_handler = on_stack, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &action, 0), sigaction(SIGUSR2, &action, 0);
    SAY(sigaltstack(0, &old));
    printf("at first %x %zx\n", old.ss_flags, old.ss_size);
    SAY(sigaltstack(&stack, 0));
    raise(SIGUSR1);
    stack.ss_flags = (int)(1u << 31);
    SAY(sigaltstack(&stack, 0));
    raise(SIGUSR1);
    sigaltstack(0, &old);
    printf("armed again %x %zx\n", old.ss_flags, old.ss_size);
    SAY(sigaltstack(&(stack_t){.ss_sp = room, .ss_size = 2047}, 0));
    SAY(sigaltstack(&(stack_t){.ss_sp = room, .ss_size = 4096, .ss_flags = 4}, 0));
    SAY(sigaltstack(&(stack_t){.ss_sp = room, .ss_size = 2048}, 0));
    fflush(stdout);
    pid_t child = fork();
    if (!child) signal(SIGSEGV, SIG_DFL), raise(SIGUSR1), _exit(0); /* the frame does not fit */
    int status;
    wait(&status);
    printf("too small: %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : -1);
}

int main(void) {
    struct sigaction action = {.sa_sigaction = frame, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, 0);
    raise(SIGUSR1);
    printf("least stack %lu\n", getauxval(AT_MINSIGSTKSZ));
    action.sa_sigaction = leave;
    int faults[] = {SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGBUS};
    for (int i = 0; i < 5; i++) sigaction(faults[i], &action, 0);
    char *page = mmap(0, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!sigsetjmp(back, 1)) *(volatile int *)8 = 1;
    if (!sigsetjmp(back, 1)) *(volatile char *)page = 1;
    if (!sigsetjmp(back, 1)) ((void (*)(void))page)();
    if (!sigsetjmp(back, 1)) (void)*(volatile int *)0x8000000000000000;
    if (!sigsetjmp(back, 1)) (void)*(volatile int *)0xffffffff81000000;
    if (!sigsetjmp(back, 1)) __asm__ volatile("ud2");
    if (!sigsetjmp(back, 1)) __asm__ volatile("int3");
    if (!sigsetjmp(back, 1)) __asm__ volatile("pushf; orl $0x100, (%%rsp); popf; nop; nop" ::: "cc");
    static char room[16384];
    sigaltstack(&(stack_t){.ss_sp = room, .ss_size = sizeof room}, 0);
    action.sa_flags |= SA_ONSTACK;
    sigaction(SIGBUS, &action, 0);
    if (!sigsetjmp(back, 1)) { /* a stack pointer that is no address: #SS */
        __asm__ volatile("mov $0x8000000000000000, %%rax; mov %%rsp, %%rbx; mov %%rax, %%rsp; push %%rax; mov %%rbx, %%rsp" ::: "rax", "rbx");
    }
    sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, 0);
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = change;
    sigaction(SIGUSR1, &action, 0);
    for (int i = 0; i < 5; i++) signal(faults[i], plain);
    for (int i = 0; i < 16; i++)
        if (i != 13) come_back(i);
    signal(SIGUSR1, spoil);
    vectors();
    alternate();
    return 0;
}
