/* Synchronous faults: signal, si_code, si_addr; what a handler may change; deaths without one. */
#include "probe.h"
#include <ucontext.h>

static sigjmp_buf back;
static char *base;
static int (*volatile callee)(void);

static void handler(int number, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    long offset = (char *)info->si_addr - base;
    const char *where = info->si_addr == (void *)u->uc_mcontext.gregs[REG_RIP] ? "rip" : NULL;
    printf("%s code %d address ", strsignal(number), info->si_code);
    if (where) printf("%s", where);
    else if (base && offset >= 0 && offset < 64 * PAGE) printf("base+%ld", offset);
    else printf("%p", info->si_addr);
    printf(" trap %lld error %lld\n", (long long)u->uc_mcontext.gregs[REG_TRAPNO], (long long)u->uc_mcontext.gregs[REG_ERR] & ~1); /* was it present? Linux may have paged it out */
    siglongjmp(back, 1);
}

static void skip(int number, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    (void)number, (void)info;
    u->uc_mcontext.gregs[REG_RAX] = 77;
    u->uc_mcontext.gregs[REG_RIP] += 2; /* ud2 */
}

#define FAULT(what)                      \
    do {                                 \
        printf("%s: ", #what);           \
        fflush(stdout);                  \
        if (!sigsetjmp(back, 1)) { what; printf("nothing happened\n"); } \
    } while (0)

static void die(const char *title, void (*act)(void)) {
    int status;
    fflush(stdout);
    if (!fork()) {
        for (int n = 1; n < 32; n++) signal(n, SIG_DFL);
        act();
        _exit(0);
    }
    wait(&status);
    printf("%s: signalled %d by %d\n", title, WIFSIGNALED(status), WIFSIGNALED(status) ? WTERMSIG(status) : -1);
}

static volatile int sink, zero;
static volatile int *volatile nowhere;
static void touch_null(void) { *nowhere = 1; }
static void divide(void) { sink = 100 / zero; }
static void undefined(void) { __asm__ volatile("ud2"); }
static volatile int forever = 1;
static void recurse(void) { volatile char big[60000]; big[0] = 1; sink = big[0]; if (forever) recurse(); sink++; }
static void blocked(void) { sigset_t s; sigfillset(&s); sigprocmask(SIG_BLOCK, &s, 0); touch_null(); }
static void ignored(void) { signal(SIGSEGV, SIG_IGN); touch_null(); }

int main(void) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (int i = 0; i < 5; i++) sigaction(numbers[i], &action, 0);
    base = mmap(0, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(base + PAGE, PAGE);
    mprotect(base + 2 * PAGE, PAGE, PROT_READ);
    mprotect(base + 3 * PAGE, PAGE, PROT_NONE);
    FAULT(sink = base[PAGE + 5]);
    FAULT(base[PAGE + 6] = 1);
    FAULT(base[2 * PAGE + 7] = 1);
    FAULT(sink = base[2 * PAGE + 7]);
    FAULT(sink = base[3 * PAGE + 8]);
    FAULT(*nowhere = 1);
    FAULT(sink = *(volatile int *)16);
    FAULT(sink = *(volatile int *)0xffffffff80000000UL);
    FAULT(sink = *(volatile int *)0x8000000000000000UL);
    FAULT(memset(base + 2 * PAGE - 10, 1, 5));
    FAULT(memcpy(base, base + 3 * PAGE - 8, 16));
    memcpy(base + 4 * PAGE, "\xb8\x2a\0\0\0\xc3", 6); /* mov eax, 42; ret */
    callee = (int (*)(void))(base + 4 * PAGE);
    FAULT(callee());
    mprotect(base + 4 * PAGE, PAGE, PROT_READ | PROT_EXEC);
    FAULT(printf("returned %d, ", callee()));
    callee = (int (*)(void))(base + PAGE);
    FAULT(callee());
    callee = NULL;
    FAULT(callee());
    FAULT(sink = 100 / zero);
    FAULT(sink = INT_MIN / (zero - 1));
    FAULT(__asm__ volatile("ud2"));
    FAULT(__asm__ volatile("int3"));
    FAULT(__asm__ volatile("hlt"));
    FAULT(__asm__ volatile("cli"));
    FAULT(__asm__ volatile("mov %%cr3, %%rax" ::: "rax"));
    FAULT(__asm__ volatile("movaps (%0), %%xmm0" ::"r"(base + 1) : "xmm0"));
    int file = open("file", O_RDWR | O_CREAT, 0600);
    ftruncate(file, 100);
    mmap(base + 8 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
    FAULT(sink = base[8 * PAGE + 4000]);
    FAULT(sink = base[9 * PAGE + 3]);
    FAULT(base[10 * PAGE + 3] = 1);
    ftruncate(file, 3 * PAGE);
    FAULT(base[10 * PAGE + 3] = 1);
    ftruncate(file, 0);
    FAULT(sink = base[10 * PAGE + 3]);
    SAY(write(1, base + 9 * PAGE, 5));

    action.sa_sigaction = skip;
    sigaction(SIGILL, &action, 0);
    long rax;
    __asm__ volatile("ud2" : "=a"(rax) : "a"(1));
    printf("the handler put %ld into rax\n", rax);
    die("null", touch_null);
    die("divide", divide);
    die("undefined", undefined);
    die("stack overflow", recurse);
    die("blocked", blocked);
    die("ignored", ignored);
    return 0;
}
