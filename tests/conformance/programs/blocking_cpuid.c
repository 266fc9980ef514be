/* Prints the names of the features that CPUID tells of. */

#include <cpuid.h>
#include <stdio.h>

int main(void) {
    unsigned a, b, c, d;
    __cpuid(1, a, b, c, d);
    static const struct { const char *name; int bit; } ecx[] = {
        {"pni", 0}, {"pclmulqdq", 1}, {"ssse3", 9}, {"fma", 12}, {"sse4_1", 19}, {"sse4_2", 20}, {"movbe", 22},
        {"popcnt", 23}, {"aes", 25}, {"xsave", 26}, {"avx", 28}, {"f16c", 29}, {"rdrand", 30}};
    for (unsigned i = 0; i < sizeof ecx / sizeof *ecx; i++) if (c >> ecx[i].bit & 1) printf("%s ", ecx[i].name);
    if (d >> 25 & 1) printf("sse ");
    if (d >> 26 & 1) printf("sse2 ");
    __cpuid(0, a, b, c, d);
    if (a >= 7) {
        __cpuid_count(7, 0, a, b, c, d);
        static const struct { const char *name; int bit; } ebx[] = {
            {"bmi1", 3}, {"avx2", 5}, {"bmi2", 8}, {"avx512f", 16}, {"rdseed", 18}, {"adx", 19}, {"sha_ni", 29}};
        for (unsigned i = 0; i < sizeof ebx / sizeof *ebx; i++) if (b >> ebx[i].bit & 1) printf("%s ", ebx[i].name);
    }
    printf("\n");
    return 0;
}
