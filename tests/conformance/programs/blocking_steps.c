/* Executes the same code from text and from a shared mapping, which an island under a blocking value only steps. */

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096

/* Everything that is done differently out of line: relative branches of all sizes, calls, returns, RIP-relative
 * operands (loads, stores, immediates, vector, with and without prefixes), indirect branches through registers and
 * memory, loops, string instructions, pushes, system calls, and immediates that hold trapped opcodes. */
extern const unsigned char code_start[], code_end[];
extern uint64_t code_entry(uint64_t, uint64_t, uint64_t *);
__asm__(
    ".text\n.p2align 12\n.globl code_start, code_end, code_entry\ncode_start:\ncode_entry:\n"
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; sub $64, %rsp\n"
    "mov %rdi, %rax; mov %rsi, %rcx; mov %rdx, %r15; xor %ebx, %ebx\n"
    "mov $13, %r12d\n"
    "1: lea (%rax,%r12,8), %rax; rol $7, %rax; xor %r12, %rax; dec %r12d; jnz 1b\n"
    "call 2f; jmp 3f\n"
    "2: add $0x1234567, %rax; ret\n"
    "3: mov constant(%rip), %rbx; add %rbx, %rax; xor constant+8(%rip), %eax; imul $77, constant(%rip), %r13; add %r13, %rax\n"
    "addq $0x55, constant+24(%rip); cmpl $9, constant+4(%rip); adc $3, %rax; movups constant(%rip), %xmm1\n"
    "paddq constant+16(%rip), %xmm1; movq %xmm1, %r14; add %r14, %rax; pshufd $0x1b, constant(%rip), %xmm2; movq %xmm2, %r13; xor %r13, %rax\n"
    "pushq constant(%rip); pop %r13; sub %r13, %rax; testb $4, constant+1(%rip); setz %bl; movzbl %bl, %ebx; add %rbx, %rax\n"
    "mov $5, %ecx\n4: add $3, %rax; loop 4b\n"
    "xor %ecx, %ecx; jrcxz 5f; add $1000, %rax\n5:\n"
    "lea 6f(%rip), %rbp; call *%rbp; jmp 7f\n6: rol $3, %rax; ret $0\n7:\n"
    "lea 8f(%rip), %rbp; mov %rbp, (%rsp); jmp *(%rsp); add $7777, %rax\n8:\n"
    "mov $8, %ecx; mov %r15, %rdi; cld; rep stosq; mov $8, %ecx; mov %r15, %rsi; 9: lodsq; dec %ecx; jnz 9b\n"
    "mov $0x00c3a20f, %r13d; add %r13, %rax; add $0x11a20f00, %eax; xor $0x0131a20f, %r14; add %r14, %rax\n"
    "movabs $0x9090a20f31a20f90, %rbp; xor %rbp, %rax; imul $0x00a20f01, %rax, %rbx; add %rbx, %rax\n"
    "movl $0x000fa20f, 8(%rsp); add 8(%rsp), %eax; push $0x0000a20f; pop %rbx; add %rbx, %rax; cmp $0x7a20f000, %eax; sbb $0, %rax\n"
    "testl $0x00a20f00, 8(%rsp); setnz %bl; movzbl %bl, %ebx; add %rbx, %rax; lea 0x0000a20f(%rax,%rbx,4), %rax\n"
    "xor %edx, %edx; mov $97, %ecx; div %rcx; add %rdx, %rax; cmovc %rcx, %rax; bt $5, %rax; rcl $9, %rax; bswap %rax\n"
    "mov %rax, %rbx; mov $39, %eax; syscall; test %eax, %eax; jle 10f; add $1, %rbx\n10: mov %rbx, %rax\n"
    "fldpi; fistpll (%rsp); add (%rsp), %rax; cvtsi2sd %rax, %xmm0; movq %xmm0, %rbx; xor %rbx, %rax\n"
    "lock xaddq %rax, 16(%r15); xchg %rax, 24(%r15); pushfq; pop %rcx; and $0xcd5, %ecx; add %rcx, %rax\n"
    "enter $16, $0; leave\n"
    "add $64, %rsp; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n"
    ".p2align 4\nconstant: .quad 0x123456789abcdef0, 0x0fedcba987654321, 0x1111111111111111, 0x2222222222222222\n"
    "code_end:\n");

static unsigned char *shared(void) {
    int fd = (int)syscall(SYS_memfd_create, "code", 0);
    size_t size = ((size_t)(code_end - code_start) + PAGE - 1) & -(size_t)PAGE;
    if (ftruncate(fd, (off_t)size)) return NULL;
    return mmap(NULL, size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, fd, 0);
}

static sigjmp_buf back;
static volatile long fault_offset, fault_code;
static unsigned char *base;
static void on_fault(int number, siginfo_t *info, void *context) {
    fault_offset = (long)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] - (long)base;
    fault_code = number * 100 + info->si_code;
    siglongjmp(back, 1);
}
static void faulting(const char *name, const void *code, size_t size, unsigned char *page) {
    base = page;
    memset(page, 0xc3, 64);
    memcpy(page, code, size);
    fault_offset = fault_code = -1;
    if (!sigsetjmp(back, 1)) ((void (*)(long))(uintptr_t)page)(0);
    if (fault_offset < 0 || fault_offset > PAGE) fault_offset = -1; /* it had left the page */
    printf("%s: signal and code %ld at %ld\n", name, fault_code, fault_offset);
}
static volatile int ticks;
static void on_tick(int number) { (void)number; ticks++; }

int main(void) {
    unsigned char *page = shared();
    if (page == MAP_FAILED) return 1;
    unsigned char *writable_text = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t one[8], two[8], seed = 88172645463325252ull;
    int same = 1;
    for (int i = 0; i < 16; i++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        memcpy(page, code_start, (size_t)(code_end - code_start));
        memcpy(writable_text, code_start, (size_t)(code_end - code_start));
        memset(one, i, sizeof one), memset(two, i, sizeof two);
        uint64_t expected = ((uint64_t (*)(uint64_t, uint64_t, uint64_t *))(uintptr_t)writable_text)(seed, i, one);
        uint64_t found = ((uint64_t (*)(uint64_t, uint64_t, uint64_t *))(uintptr_t)page)(seed, i, two);
        if (expected != found || memcmp(one, two, sizeof one)) {
            printf("differs at %d: %lx %lx\n", i, (long)expected, (long)found);
            same = 0;
        }
        if (i % 4 == 0) printf("%lx\n", (long)found);
    }
    printf(same ? "same\n" : "different\n");
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    for (int number = 1; number < 32; number++)
        if (number == SIGILL || number == SIGSEGV || number == SIGFPE || number == SIGTRAP || number == SIGBUS)
            sigaction(number, &action, NULL);
    faulting("load", "\x90\x48\x8b\x07\xc3", 5, page);
    faulting("store after others", "\x90\x90\x31\xc0\x48\x89\x07\xc3", 8, page);
    faulting("divide", "\x31\xc9\xf7\xf1\xc3", 5, page);
    faulting("undefined", "\x90\x0f\x0b", 3, page);
    faulting("breakpoint", "\x90\xcc\xc3", 3, page);
    faulting("privileged", "\x90\xf4\xc3", 3, page);
    faulting("bad call", "\x31\xc0\xff\xd0\xc3", 5, page);
    faulting("write to text", "\x90\x0f\xa2\x0f\x0b", 5, page);
    /* signals must not be lost, nor anything done twice, while code is stepped */
    struct sigaction tick = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &tick, NULL);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    struct itimerspec period = {{0, 3000000}, {0, 3000000}};
    timer_settime(timer, 0, &period, NULL);
    /* mov rcx, rdi; xor eax, eax; 1: inc rax; dec rcx; jnz 1b; ret */
    memcpy(page, "\x48\x89\xf9\x31\xc0\x48\xff\xc0\x48\xff\xc9\x75\xf8\xc3", 14);
    long counted = ((long (*)(long))(uintptr_t)page)(600);
    printf("counted %ld\n", counted);
    period.it_value.tv_nsec = period.it_interval.tv_nsec = 0;
    timer_settime(timer, 0, &period, NULL);
    return 0;
}
