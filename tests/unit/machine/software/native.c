/* Executes single instructions on the processor of this host: the oracle of the tests of instructions in software.
   Reads records of `struct record` from standard input and writes them back as the instruction left them. RSP is not
   loaded; the memory operand is at MEMORY. */
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CODE ((unsigned char *)0x10000000)
#define MEMORY ((unsigned char *)0x20000000)
#define SIZE 256

struct record {
    uint64_t status;
    unsigned char code[16];
    uint64_t gpr[16]; /* by number in an instruction */
    uint64_t flags;
    unsigned char ymm[16][32];
    unsigned char memory[SIZE];
    uint64_t mxcsr;
} state;

static sigjmp_buf back;

static void trapped(int number) { siglongjmp(back, number); }

#define LOAD(name, index) "mov state+24+8*" #index "(%%rip), %%" #name "\n"
#define KEEP(name, index) "mov %%" #name ", state+24+8*" #index "(%%rip)\n"
#define GENERAL(x) x(rax, 0) x(rcx, 1) x(rdx, 2) x(rbx, 3) x(rbp, 5) x(rsi, 6) x(rdi, 7) \
    x(r8, 8) x(r9, 9) x(r10, 10) x(r11, 11) x(r12, 12) x(r13, 13) x(r14, 14) x(r15, 15)
#define LOADV(index) "vmovdqu state+160+32*" #index "(%%rip), %%ymm" #index "\n"
#define KEEPV(index) "vmovdqu %%ymm" #index ", state+160+32*" #index "(%%rip)\n"
#define VECTORS(x) x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11) x(12) x(13) x(14) x(15)

__attribute__((noinline)) static void execute(void) {
    __asm__ volatile("push %%rbp\n push %%rbx\n push %%r12\n push %%r13\n push %%r14\n push %%r15\n" VECTORS(LOADV)
                     "ldmxcsr state+928(%%rip)\n push state+152(%%rip)\n popfq\n" GENERAL(LOAD) "call *target(%%rip)\n" GENERAL(KEEP)
                     "pushfq\n pop state+152(%%rip)\n" VECTORS(KEEPV)
                     "stmxcsr state+928(%%rip)\n"
                     "vzeroupper\n cld\n pop %%r15\n pop %%r14\n pop %%r13\n pop %%r12\n pop %%rbx\n pop %%rbp\n"
                     :
                     :
                     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc", "xmm0", "xmm1");
}

unsigned char *target __attribute__((used)) = CODE;

int main(void) {
    struct sigaction action = {.sa_handler = trapped, .sa_flags = SA_ONSTACK | SA_NODEFER};
    stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
    sigaltstack(&stack, NULL);
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    if (mmap(CODE, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, flags, -1, 0) == MAP_FAILED ||
        mmap(MEMORY, 4096, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
        return 2;
    while (fread(&state, sizeof state, 1, stdin) == 1) {
        memcpy(CODE, state.code, sizeof state.code);
        memcpy(MEMORY, state.memory, SIZE);
        state.status = sigsetjmp(back, 1);
        if (!state.status)
            execute();
        memcpy(state.memory, MEMORY, SIZE);
        fwrite(&state, sizeof state, 1, stdout);
    }
    return 0;
}
