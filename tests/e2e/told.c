/* Prints what a program is told of its processor: CPUID, XGETBV, the auxiliary vector, arch_prctl, a signal frame. */
#include <cpuid.h>
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static uint64_t frame[3];

static void handler(int signo, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    const char *area = (const char *)uc->uc_mcontext.fpregs;
    uint32_t words[4];
    (void)signo, (void)info;
    memcpy(words, area + 464, 16); /* struct _fpx_sw_bytes */
    frame[0] = words[0];
    frame[1] = words[2] | (uint64_t)words[3] << 32;
    memcpy(&frame[2], area + 512, 8); /* XSTATE_BV */
}

int main(void)
{
    static const unsigned bases[] = {0, 0x80000000};
    unsigned a, b, c, d, mode = 0;
    uint64_t pair[2], supported = 0;
    for (int range = 0; range < 2; range++)
        for (unsigned leaf = bases[range]; leaf <= bases[range] + (range ? 0x28 : 0x20); leaf++)
            for (unsigned subleaf = 0; subleaf < 8; subleaf++) {
                __cpuid_count(leaf, subleaf, a, b, c, d);
                printf("cpuid %x %x %x %x %x %x\n", leaf, subleaf, a, b, c, d);
            }
    __cpuid(1, a, b, c, d);
    if (c & bit_OSXSAVE) {
        __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
        printf("xcr0 %x\n", a);
    }
    int fd = open("/proc/self/auxv", O_RDONLY);
    while (read(fd, pair, sizeof pair) == sizeof pair && pair[0] != AT_NULL)
        if (pair[0] == AT_HWCAP || pair[0] == 26 || pair[0] == 51)
            printf("auxv %d %lx\n", (int)pair[0], pair[1]);
    printf("supported %ld", syscall(SYS_arch_prctl, 0x1021, &supported));
    printf(" %lx\n", supported);
    prctl(PR_GET_TSC, &mode);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("tsc %u %d\n", mode, now.tv_sec > 0 || now.tv_nsec > 0);
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    printf("frame %lx %lx %lx\n", frame[0], frame[1], frame[2]);
    return 0;
}
