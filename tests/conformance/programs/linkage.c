/* What every program relies on before main: arguments, environment, constructors, thread-local storage, the auxiliary vector. */
#include <elf.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

static int constructed;
static __thread int local = 7;
__attribute__((constructor)) static void construct(void) { constructed = 1; }
static void farewell(void) { puts("at exit"); }
static void *thread(void *unused) { (void)unused; local++; return (void *)(intptr_t)local; }

int main(int argc, char **argv, char **envp) {
    void *result;
    pthread_t t;
    atexit(farewell);
    for (int i = 1; i < argc; i++) printf("argument <%s>\n", argv[i]);
    int count = 0;
    while (envp[count]) count++;
    printf("environment %d, HOME %s\n", count, getenv("HOME"));
    pthread_create(&t, 0, thread, 0);
    pthread_join(t, &result);
    printf("constructed %d, thread-local %d and %d\n", constructed, local, (int)(intptr_t)result);
    printf("page size %lu, clock ticks %lu, secure %lu\n", getauxval(AT_PAGESZ), getauxval(AT_CLKTCK), getauxval(AT_SECURE));
    printf("random %d, platform %s, execfn %s\n", getauxval(AT_RANDOM) != 0, (char *)getauxval(AT_PLATFORM),
           strrchr((char *)getauxval(AT_EXECFN), '/') ? "path" : "name");
    printf("phdr %d, entry %d, vdso %d\n", getauxval(AT_PHDR) != 0, getauxval(AT_ENTRY) != 0, getauxval(AT_SYSINFO_EHDR) != 0);
    printf("stack aligned %d, argv on it %d\n", ((uintptr_t)__builtin_frame_address(0) & 15) == 0, (char *)argv > (char *)&count);
    fprintf(stderr, "to stderr\n");
    return 42;
}
