/* mmap, munmap, mprotect, mremap, brk, madvise, fork's copy-on-write, shared mappings, limits. */
#include "probe.h"
#include <sys/resource.h>

static char *map(size_t pages, int prot, int flags) { return mmap(0, pages * PAGE, prot, flags | MAP_ANONYMOUS, -1, 0); }
static sigjmp_buf back;
static void handler(int n) { (void)n; siglongjmp(back, 1); }
static int readable(volatile char *p) { if (sigsetjmp(back, 1)) return 0; (void)*p; return 1; }
static int writable(volatile char *p) { if (sigsetjmp(back, 1)) return 0; *p = *p; return 1; }
#define RW (PROT_READ | PROT_WRITE)
#define PRIVATE_ANON (MAP_PRIVATE | MAP_ANONYMOUS)

static void access_line(const char *title, char *p, int pages) {
    printf("%s: ", title);
    for (int i = 0; i < pages; i++) printf("%c%c ", readable(p + i * PAGE) ? 'r' : '-', writable(p + i * PAGE) ? 'w' : '-');
    printf("\n");
}

int main(void) {
    int status, file = open("file", O_RDWR | O_CREAT | O_TRUNC, 0600);
    signal(SIGSEGV, handler);
    signal(SIGBUS, handler);
    char *p = map(8, RW, MAP_PRIVATE);
    for (int i = 0; i < 8; i++) p[i * PAGE] = 'a' + i;
    SAY(munmap(p + PAGE, PAGE));
    SAY(mprotect(p + 3 * PAGE, 2 * PAGE, PROT_READ));
    SAY(mprotect(p + 6 * PAGE, PAGE, PROT_NONE));
    access_line("after munmap and mprotect", p, 8);
    SAY(mprotect(p, 3 * PAGE, RW));
    SAY(mprotect(p + 6 * PAGE, PAGE, RW));
    printf("kept %c\n", p[6 * PAGE]);
    SAY(munmap(p + 1, PAGE));
    SAY(munmap(p, 0));
    SAY(munmap(p + PAGE, PAGE));
    SAY(mmap(0, 0, RW, PRIVATE_ANON, -1, 0));
    SAY(mmap(0, PAGE, RW, MAP_ANONYMOUS, -1, 0));
    SAY(mmap(p + 1, PAGE, RW, PRIVATE_ANON | MAP_FIXED, -1, 0));
    SAY(mmap(p, PAGE, RW, PRIVATE_ANON | MAP_FIXED_NOREPLACE, -1, 0));
    SAY(mmap(p + PAGE, PAGE, RW, PRIVATE_ANON | MAP_FIXED_NOREPLACE, -1, 0) == p + PAGE);
    SAY(mmap(p + PAGE, PAGE, RW, PRIVATE_ANON | MAP_FIXED, -1, 0) == p + PAGE);
    printf("fresh %d\n", p[PAGE]);
    SAY(mmap(0, PAGE, RW, MAP_SHARED, 77, 0));
    SAY(mmap(0, PAGE, RW, MAP_SHARED, file, 1));
    SAY(mmap(0, PAGE, RW, MAP_SHARED, open("file", O_RDONLY), 0));
    SAY(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, open("file", O_WRONLY), 0));
    SAY(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, open("/", O_RDONLY), 0));
    SAY(mmap(0, 1UL << 50, RW, PRIVATE_ANON, -1, 0));
    SAY(mprotect((void *)0x10000, PAGE, RW));
    SAY(madvise(p, PAGE, MADV_DONTNEED));
    printf("after DONTNEED %d %c\n", p[0], p[2 * PAGE]);
    SAY(madvise(p, PAGE, 9999));
    SAY(madvise(p + 1, PAGE, MADV_DONTNEED));
    SAY(msync(p, PAGE, MS_SYNC));
    SAY(mlock(p, PAGE));
    SAY(munlock(p, PAGE));
    unsigned char resident[8];
    SAY(mincore(p, 8 * PAGE, resident));

    char *r = map(4, RW, MAP_PRIVATE);
    strcpy(r, "first");
    strcpy(r + 3 * PAGE, "fourth");
    SAY(mremap(r, 4 * PAGE, 2 * PAGE, 0) == r);
    access_line("shrunk", r, 4);
    char *far = mremap(r, 2 * PAGE, 600 * PAGE, MREMAP_MAYMOVE);
    printf("grown %s %d\n", far, far[599 * PAGE]);
    SAY(mremap(far, PAGE + 1, 2 * PAGE, 77));
    char *target = map(10, RW, MAP_PRIVATE);
    strcpy(target, "replaced");
    SAY(mremap(far, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target);
    printf("moved %s, the old is %s\n", target, readable(far) ? "there" : "gone");

    void *old = sbrk(0);
    SAY(brk((char *)old + 100 * PAGE));
    memset(old, 7, 100 * PAGE);
    SAY(sbrk(0) == (char *)old + 100 * PAGE);
    SAY(brk(old));
    SAY(sbrk(50 * PAGE) == old);
    printf("brk memory is fresh: %d\n", ((char *)old)[49 * PAGE]);

    char *cow = map(300, RW, MAP_PRIVATE), *shared = map(4, RW, MAP_SHARED);
    for (int i = 0; i < 300; i++) cow[i * PAGE] = i;
    shared[0] = 1;
    if (!fork()) {
        int wrong = 0;
        for (int i = 0; i < 300; i++) wrong += cow[i * PAGE] != (char)i;
        for (int i = 0; i < 300; i += 2) cow[i * PAGE] = 99;
        shared[0] = 2;
        shared[3 * PAGE] = 3;
        if (!fork()) { cow[1 * PAGE] = 98; wrong += cow[0] != 99; shared[1] = 4; _exit(wrong); }
        wait(&status);
        wrong += WEXITSTATUS(status) + (cow[1 * PAGE] != 1);
        _exit(wrong);
    }
    for (int i = 1; i < 300; i += 2) cow[i * PAGE] = 55;
    wait(&status);
    int wrong = 0;
    for (int i = 0; i < 300; i++) wrong += cow[i * PAGE] != (char)(i % 2 ? 55 : i);
    printf("copy-on-write: child %d, parent %d; shared %d %d %d\n", WEXITSTATUS(status), wrong, shared[0], shared[1], shared[3 * PAGE]);

    ftruncate(file, 4 * PAGE);
    pwrite(file, "on disk", 7, 2 * PAGE);
    char *one = mmap(0, 4 * PAGE, RW, MAP_SHARED, file, 0), *two = mmap(0, 2 * PAGE, RW, MAP_SHARED, file, 2 * PAGE);
    char *mine = mmap(0, 4 * PAGE, RW, MAP_PRIVATE, file, 0);
    printf("%s %s %s\n", one + 2 * PAGE, two, mine + 2 * PAGE);
    strcpy(one + 2 * PAGE, "through one");
    strcpy(mine + 3 * PAGE, "only mine");
    char text[20] = {0};
    pread(file, text, 11, 2 * PAGE);
    printf("%s | %s | %s | %d\n", two, text, mine + 2 * PAGE, one[3 * PAGE]);
    if (!fork()) { strcpy(two, "from a child"); strcpy(mine, "child's"); _exit(0); }
    wait(&status);
    printf("%s | %d\n", one + 2 * PAGE, mine[0]);
    SAY(mprotect(mine, PAGE, PROT_READ));
    access_line("file pages", mine, 4);
    int unlinked = open("gone", O_RDWR | O_CREAT, 0600);
    ftruncate(unlinked, PAGE);
    char *kept = mmap(0, PAGE, RW, MAP_SHARED, unlinked, 0);
    unlink("gone");
    close(unlinked);
    strcpy(kept, "still here");
    printf("%s\n", kept);

    int memory = memfd_create("x", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    SAY(ftruncate(memory, 2 * PAGE));
    char *m = mmap(0, 2 * PAGE, RW, MAP_SHARED, memory, 0);
    strcpy(m, "memfd");
    SAY(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
    SAY(ftruncate(memory, PAGE));
    SAY(fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE));
    SAY(pread(memory, text, 5, 0));

    char *stack = mmap(0, 640 * PAGE, RW, PRIVATE_ANON | MAP_NORESERVE, -1, 0); /* more than the guard gap of a stack */
    SAY(munmap(stack, 630 * PAGE));
    char *down = mmap(stack + 620 * PAGE, 10 * PAGE, RW, PRIVATE_ANON | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
    down[0] = 1;
    printf("grows down: %d\n", writable(down - 100) == 1);
    char *huge = mmap(0, 64 << 20, RW, PRIVATE_ANON, -1, 0);
    for (long i = 0; i < 64 << 20; i += PAGE) huge[i] = i >> 12;
    SAY(mprotect(huge + (8 << 20) + PAGE, PAGE, PROT_READ));
    SAY(munmap(huge + (16 << 20), 3 << 20));
    printf("in the large one: %d %d %d %d %d\n", huge[(8 << 20) + PAGE], writable(huge + (8 << 20) + PAGE), writable(huge + (8 << 20)),
           readable(huge + (17 << 20)), readable(huge + (19 << 20)));
    SAY(madvise(huge, 4 << 20, MADV_DONTNEED));
    printf("%d %d\n", huge[5 * PAGE], huge[(4 << 20) + 5 * PAGE]);
    struct rlimit limit = {1 << 30, 1 << 30};
    SAY(setrlimit(RLIMIT_AS, &limit));
    SAY(mmap(0, 2UL << 30, RW, PRIVATE_ANON, -1, 0));
    return 0;
}
