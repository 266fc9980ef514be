/* Ways to get at what a processor was told to hide. Each variant runs in a child of its own and prints one line:
 * what CPUID leaf 1 said of AES, RDRAND and MOVBE (UNMASKED or masked), the signal it died of, or why it is refused.
 * Run natively it shows that the variant works; on an island with --cpu x86-64-v2 no line may say UNMASKED. */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096
#define HIDDEN (1u << 25 | 1u << 30 | 1u << 22)
#define REFUSED 0x80000001u
#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)
#define RX (PROT_READ | PROT_EXEC)
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define TRY(call) do { if ((long)(call) == -1) refuse(#call); } while (0)

typedef unsigned (*function)(void);
typedef unsigned char byte;

static int report;
static char *self;

static void finish(unsigned value) {
    write(report, &value, 4);
    _exit(0);
}
static void refuse(const char *call) {
    (void)call;
    finish(REFUSED);
}

/* push rbx; mov eax, 1; xor ecx, ecx; cpuid; mov eax, ecx; pop rbx; ret */
static const byte query[] = {0x53, 0xb8, 1, 0, 0, 0, 0x31, 0xc9, 0x0f, 0xa2, 0x89, 0xc8, 0x5b, 0xc3};
#define AT_CPUID 8
/* the same with a harmless BT in place of CPUID, which returns 0 */
static const byte harmless[] = {0x53, 0xb8, 1, 0, 0, 0, 0x31, 0xc9, 0x0f, 0xa3, 0xc9, 0x89, 0xc8, 0x5b, 0xc3};
/* xor eax, eax; ret */
static const byte nothing[] = {0x31, 0xc0, 0xc3};

static byte *map(int prot, int flags, int fd, size_t size) {
    byte *at = mmap(NULL, size, prot, flags, fd, 0);
    if (at == MAP_FAILED) refuse("mmap");
    return at;
}
static byte *fresh(int prot) { return map(prot, ANON, -1, 4 * PAGE); }
static unsigned call(const void *code) {
    __asm__ volatile("" ::: "memory");
    return ((function)(uintptr_t)code)();
}
static byte *put(byte *at, const void *code, size_t size) { memcpy(at, code, size); return at; }
static byte *put_query(byte *at) { return put(at, query, sizeof query); }
static byte *put_harmless(byte *at) { return put(at, harmless, sizeof harmless); }

/* enter at `entry` of `code` with RAX = 1, RCX = 0: what stands there is CPUID; result in ECX */
static unsigned enter(const byte *entry) {
    unsigned ecx = 0, eax = 1, edx;
    __asm__ volatile("sub $128, %%rsp; push %%rbx; call *%3; pop %%rbx; add $128, %%rsp"
                     : "+c"(ecx), "+a"(eax), "=d"(edx) : "r"(entry) : "memory", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc");
    return ecx;
}

static unsigned plain(void) {
    unsigned eax = 1, ecx = 0;
    __asm__ volatile("push %%rbx; cpuid; pop %%rbx" : "+a"(eax), "+c"(ecx) :: "edx");
    return ecx;
}
static unsigned prefixed(const byte *prefix, size_t size) {
    byte *page = fresh(RWX), code[32];
    memcpy(code, prefix, size);
    memcpy(code + size, "\x0f\xa2\xc3", 3);
    return enter(put(page, code, size + 3));
}
#define PREFIX(name, text) static unsigned name(void) { return prefixed((const byte *)text, sizeof text - 1); }
PREFIX(prefix_66, "\x66")
PREFIX(prefix_f3, "\xf3")
PREFIX(prefix_f2, "\xf2")
PREFIX(prefix_rex, "\x48")
PREFIX(prefix_rex_all, "\x4f")
PREFIX(prefix_cs, "\x2e")
PREFIX(prefix_gs, "\x65")
PREFIX(prefix_67, "\x67")
PREFIX(prefix_many, "\x66\x2e\x66\x3e\x64\x65\x66\x67\x66\x66\x66\x66\x48")
PREFIX(prefix_too_many, "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66")
PREFIX(prefix_lock, "\xf0")

static unsigned in_immediate(void) { /* mov eax, 0xc9c3a20f */
    byte *page = put(fresh(RWX), "\xb8\x0f\xa2\xc3\xc9\xc3", 6);
    call(page);
    return enter(page + 1);
}
static unsigned in_immediate_64(void) { /* movabs rax, ... */
    byte *page = put(fresh(RWX), "\x48\xb8\x90\x90\x0f\xa2\xc3\x90\x90\x90\xc3", 11);
    call(page);
    return enter(page + 4);
}
static unsigned in_compare(void) { /* cmp eax, 0xc3a20f90 in front of a return */
    byte *page = put(fresh(RWX), "\x31\xc0\x3d\x90\x0f\xa2\xc3\xc3", 8);
    call(page);
    return enter(page + 4);
}
static unsigned in_displacement(void) { /* lea rax, [rip + 0x00c3a20f] */
    byte *page = put(fresh(RWX), "\x48\x8d\x05\x0f\xa2\xc3\x00\xc3", 8);
    call(page);
    return enter(page + 3);
}
static unsigned in_modrm(void) { /* mov [rdi], ecx; movabs [..], al */
    static byte *page;
    page = put(fresh(RWX), "\x89\x0f\xa2\xc3\x90\x90\x90\x90\x90\x90\xc3", 11);
    return enter(page + 1);
}
static unsigned in_sib(void) { /* or byte [rdi], 0xa2 */
    return enter(put(fresh(RWX), "\x80\x0f\xa2\xc3", 4) + 1);
}
static unsigned between_two(void) { /* mov al, 0x0f; movabs [...], al */
    return enter(put(fresh(RWX), "\xb0\x0f\xa2\xc3\x90\x90\x90\x90\x90\x90\xc3", 11) + 1);
}
static unsigned behind_another(void) { /* cpuid where the ModRM byte of movdir64b would be */
    return enter(put(fresh(RWX), "\x0f\x38\xf8\x0f\xa2\xc3", 6) + 3);
}
static unsigned deep_in_text(void) { /* sane code around it, and the immediate is entered */
    byte *page = fresh(RWX);
    size_t at = 0;
    for (int i = 0; i < 40; i++) at += (size_t)(put(page + at, "\x48\x89\xc8", 3), 3);
    put(page + at, "\xb8\x0f\xa2\xc3\x00", 5);
    byte *hidden = page + at + 1;
    at += 5;
    for (int i = 0; i < 40; i++) at += (size_t)(put(page + at, "\x48\x89\xc8", 3), 3);
    page[at] = 0xc3;
    enter(page);
    return enter(hidden);
}
static unsigned across_pages(void) {
    byte *page = fresh(RWX);
    return call(put_query(page + PAGE - AT_CPUID - 1));
}
static unsigned across_pages_second_first(void) {
    byte *page = fresh(RWX);
    put(page + PAGE + 64, nothing, sizeof nothing);
    put_query(page + PAGE - AT_CPUID - 1);
    call(page + PAGE + 64);
    return call(page + PAGE - AT_CPUID - 1);
}
static unsigned across_mappings(void) {
    byte *page = fresh(RWX);
    TRY(mprotect(page + PAGE, PAGE, RW));
    put_query(page + PAGE - AT_CPUID - 1);
    TRY(mprotect(page, PAGE, RX));
    TRY(mprotect(page + PAGE, PAGE, RX));
    return call(page + PAGE - AT_CPUID - 1);
}
static unsigned across_pages_later(void) { /* both pages have run before the bytes meet */
    byte *page = fresh(RWX), *start = page + PAGE - AT_CPUID - 1;
    put_harmless(start);
    put(page + PAGE + 64, nothing, sizeof nothing);
    call(start);
    call(page + PAGE + 64);
    put_query(start);
    return call(start);
}
static unsigned prefix_across_pages(void) {
    byte *page = fresh(RWX);
    return enter(put(page + PAGE - 1, "\x66\x0f\xa2\xc3", 4));
}
static unsigned jit(void) { return call(put_query(fresh(RWX))); }
static unsigned jit_protected(void) {
    byte *page = put_query(fresh(RW));
    TRY(mprotect(page, PAGE, RX));
    return call(page);
}
static unsigned jit_execute_only(void) {
    byte *page = put_query(fresh(RW));
    TRY(mprotect(page, PAGE, PROT_EXEC));
    return call(page);
}
static unsigned jit_overwritten(void) {
    byte *page = put_harmless(fresh(RWX));
    for (int i = 0; i < 3; i++) call(page);
    return call(put_query(page));
}
static unsigned jit_one_byte(void) {
    byte *page = put_harmless(fresh(RWX));
    call(page);
    page[AT_CPUID + 1] = 0xa2; /* cpuid; leave: so return at once */
    page[AT_CPUID + 2] = 0x89, page[AT_CPUID + 3] = 0xc8, page[AT_CPUID + 4] = 0x5b, page[AT_CPUID + 5] = 0xc3;
    return call(page);
}
static unsigned self_modifying(void) { /* mov byte [rip+x], 0xa2, right before that byte */
    byte *page = fresh(RWX);
    return enter(put(page, "\xc6\x05\x01\x00\x00\x00\xa2\x0f\xa3\xc3", 10));
}
static unsigned at_site(void) { /* what was CPUID becomes something else and CPUID again */
    byte *page = put_query(fresh(RWX));
    unsigned all = 0;
    for (int i = 0; i < 20; i++) {
        all |= call(page);
        put_harmless(page);
        if (call(page)) return 0xffffffff;
        put_query(page);
    }
    return all;
}
static int memory_file(size_t pages) {
    int fd = (int)syscall(SYS_memfd_create, "code", 0);
    if (fd < 0 || ftruncate(fd, (off_t)(pages * PAGE))) refuse("memfd_create");
    return fd;
}
static unsigned aliases(void) {
    int fd = memory_file(1);
    byte *w = map(RW, MAP_SHARED, fd, PAGE), *x = map(RX, MAP_SHARED, fd, PAGE);
    put_query(w);
    return call(x);
}
static unsigned aliases_later(void) {
    int fd = memory_file(1);
    byte *w = map(RW, MAP_SHARED, fd, PAGE), *x = map(RX, MAP_SHARED, fd, PAGE);
    put_harmless(w);
    for (int i = 0; i < 3; i++) call(x);
    put_query(w);
    return call(x);
}
static unsigned alias_hidden(void) {
    int fd = memory_file(1);
    byte *w = map(RW, MAP_SHARED, fd, PAGE), *x = map(RX, MAP_SHARED, fd, PAGE);
    put(w, "\xb8\x0f\xa2\xc3\x00\xc3", 6);
    call(x);
    return enter(x + 1);
}
static unsigned alias_private(void) {
    int fd = memory_file(1);
    byte *w = map(RW, MAP_SHARED, fd, PAGE), *x = map(RX, MAP_PRIVATE, fd, PAGE);
    put_harmless(w);
    call(x);
    put_query(w);
    return call(x);
}
static unsigned alias_by_descriptor(void) {
    int fd = memory_file(1);
    pwrite(fd, harmless, sizeof harmless, 0);
    byte *x = map(RX, MAP_PRIVATE, fd, PAGE);
    call(x);
    pwrite(fd, query, sizeof query, 0);
    return call(x);
}
static unsigned alias_writable_executable(void) {
    int fd = memory_file(1);
    byte *one = map(RWX, MAP_SHARED, fd, PAGE), *two = map(RWX, MAP_SHARED, fd, PAGE);
    put_harmless(one);
    call(two);
    put_query(two);
    return call(one);
}
static unsigned shared_anonymous(void) {
    byte *page = map(RWX, MAP_SHARED | MAP_ANONYMOUS, -1, PAGE);
    return call(put_query(page));
}
static int disk_file(const void *content, size_t size) {
    char name[] = "/tmp/code-XXXXXX";
    int fd = mkstemp(name);
    if (fd < 0) refuse("mkstemp");
    unlink(name);
    byte page[PAGE] = {0};
    memcpy(page, content, size);
    if (write(fd, page, PAGE) != PAGE) refuse("write");
    return fd;
}
static unsigned file_shared(void) {
    int fd = disk_file(harmless, sizeof harmless);
    byte *x = map(RX, MAP_SHARED, fd, PAGE);
    call(x);
    pwrite(fd, query, sizeof query, 0);
    return call(x);
}
static unsigned file_private(void) { return call(map(RX, MAP_PRIVATE, disk_file(query, sizeof query), PAGE)); }
static unsigned file_rewritten(void) {
    int fd = disk_file(harmless, sizeof harmless);
    byte *x = map(RX, MAP_PRIVATE, fd, PAGE);
    call(x);
    pwrite(fd, query, sizeof query, 0);
    return call(x);
}
static unsigned file_truncated(void) {
    int fd = disk_file(harmless, sizeof harmless);
    byte *x = map(RX, MAP_PRIVATE, fd, PAGE), page[PAGE] = {0};
    call(x);
    TRY(ftruncate(fd, 0));
    memcpy(page, query, sizeof query);
    pwrite(fd, page, PAGE, 0);
    return call(x);
}
static unsigned file_discarded(void) {
    int fd = disk_file(harmless, sizeof harmless);
    byte *x = map(RX, MAP_PRIVATE, fd, PAGE);
    call(x);
    pwrite(fd, query, sizeof query, 0);
    TRY(madvise(x, PAGE, MADV_DONTNEED));
    return call(x);
}
static unsigned moved(void) {
    byte *page = put_query(fresh(RWX));
    call(page);
    byte *to = mremap(page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, fresh(RW));
    TRY(to);
    return call(to);
}
static unsigned moved_then_protected(void) {
    byte *page = put_query(fresh(RW));
    byte *to = mremap(page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, fresh(RX));
    TRY(to);
    TRY(mprotect(to, PAGE, RX));
    return call(to);
}
static unsigned moved_over_code(void) {
    byte *page = put_query(fresh(RWX)), *old = put_harmless(fresh(RWX));
    call(old);
    TRY(mremap(page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, old));
    return call(old);
}
static unsigned grown(void) {
    byte *page = put_harmless(map(RWX, ANON, -1, PAGE));
    call(page);
    byte *to = mremap(page, PAGE, 64 * PAGE, MREMAP_MAYMOVE);
    TRY(to);
    return call(put_query(to + 63 * PAGE));
}
static unsigned flipped(void) {
    byte *page = put_harmless(fresh(RW));
    unsigned all = 0;
    for (int i = 0; i < 20; i++) {
        TRY(mprotect(page, PAGE, RX));
        all |= call(page);
        TRY(mprotect(page, PAGE, RW));
        if (i & 1) put_harmless(page); else put_query(page);
    }
    return all;
}
static unsigned flipped_unseen(void) { /* rights go and come, the contents stay */
    byte *page = put_query(fresh(RWX));
    unsigned all = call(page);
    TRY(mprotect(page, PAGE, PROT_NONE));
    TRY(mprotect(page, PAGE, RWX));
    all |= call(page);
    TRY(mprotect(page, PAGE, RX));
    return all | call(page) | (memcmp(page, query, sizeof query) ? 0 : 0);
}
static unsigned on_stack(void) {
    byte code[2 * PAGE];
    byte *page = (byte *)(((uintptr_t)code + PAGE - 1) & -(uintptr_t)PAGE);
    TRY(mprotect(page, PAGE, RWX));
    return call(put_query(page + 64));
}
static unsigned on_heap(void) {
    byte *page = aligned_alloc(PAGE, PAGE);
    put_query(page);
    TRY(mprotect(page, PAGE, RWX));
    return call(page);
}
static unsigned huge(void) {
    byte *at = map(RWX, ANON, -1, 6 << 20);
    byte *page = (byte *)(((uintptr_t)at + (2 << 20) - 1) & -(uintptr_t)(2 << 20));
    put_harmless(page);
    call(page);
    return call(put_query(page + (1 << 20))) | call(put_query(page));
}
static unsigned replaced(void) {
    byte *page = put_harmless(fresh(RWX));
    call(page);
    if (mmap(page, PAGE, RWX, ANON | MAP_FIXED, -1, 0) != page) refuse("mmap");
    return call(put_query(page));
}
static unsigned unmapped_and_mapped(void) {
    byte *page = put_harmless(fresh(RWX));
    call(page);
    munmap(page, PAGE);
    if (mmap(page, PAGE, RWX, ANON | MAP_FIXED, -1, 0) != page) refuse("mmap");
    return call(put_query(page));
}
static byte *executed(void) {
    byte *page = put_harmless(fresh(RWX));
    call(page);
    return page;
}
static unsigned by_read(void) {
    byte *page = executed();
    int ends[2];
    TRY(pipe(ends));
    write(ends[1], query, sizeof query);
    TRY(read(ends[0], page, sizeof query));
    return call(page);
}
static unsigned by_readv(void) {
    byte *page = executed();
    struct iovec pieces[2] = {{page, 5}, {page + 5, sizeof query - 5}};
    TRY(preadv(disk_file(query, sizeof query), pieces, 2, 0));
    return call(page);
}
static unsigned by_socket(void) {
    byte *page = executed();
    int ends[2];
    TRY(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    send(ends[0], query, sizeof query, 0);
    TRY(recv(ends[1], page, sizeof query, MSG_WAITALL));
    return call(page);
}
static unsigned by_call_result(void) { /* getcwd, as any call that stores */
    byte *page = executed();
    char name[] = "/tmp/XXXXXX";
    if (!mkdtemp(name)) refuse("mkdtemp");
    char path[64];
    snprintf(path, sizeof path, "%s/%.*s", name, (int)sizeof query, "\x53\x6a\x01\x58\x31\xc9\x0f\xa2\x89\xc8\x5b\xc3");
    TRY(mkdir(path, 0700));
    TRY(chdir(path));
    TRY(syscall(SYS_getcwd, page, 256));
    rmdir(path), rmdir(name);
    return call(page + strlen(name) + 1);
}
static unsigned by_vm_write(void) {
    byte *page = executed();
    struct iovec from = {(void *)(uintptr_t)query, sizeof query}, to = {page, sizeof query};
    TRY(process_vm_writev(getpid(), &from, 1, &to, 1, 0));
    return call(page);
}
static unsigned by_proc_mem(void) {
    byte *page = executed();
    int fd = open("/proc/self/mem", O_RDWR);
    TRY(fd);
    TRY(pwrite(fd, query, sizeof query, (off_t)(uintptr_t)page));
    return call(page);
}
static volatile unsigned seen;
static unsigned trampoline(void) { /* the restorer of a handler */
    byte *page = put(fresh(RWX), "\xb8\x01\x00\x00\x00\x31\xc9\x0f\xa2\x89\x0d\x09\x00\x00\x00\xb8\x0f\x00\x00\x00\x0f\x05", 22);
    struct { void *handler; unsigned long flags; void *restorer; unsigned long mask; } action;
    memset(&action, 0, sizeof action);
    action.handler = (void *)(uintptr_t)put(page + 256, "\xc3", 1);
    action.flags = 0x04000000;
    action.restorer = page;
    TRY(syscall(SYS_rt_sigaction, SIGUSR1, &action, NULL, 8));
    raise(SIGUSR1);
    return *(unsigned *)(page + 24);
}
static void in_handler(int signal) { (void)signal; seen = call(put_query(fresh(RWX))); }
static unsigned handler(void) {
    signal(SIGUSR1, in_handler);
    raise(SIGUSR1);
    return seen;
}
static byte *frame_code;
static void find_frame(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    frame_code = (byte *)((ucontext_t *)context)->uc_mcontext.fpregs + 160; /* XMM0 */
    seen |= call(frame_code);
}
static unsigned signal_frame(void) { /* the kernel itself stores the code: as XMM0 in a frame on an executable stack */
    byte *stack = map(RWX, ANON, -1, 32 * PAGE);
    for (byte *page = stack; page < stack + 32 * PAGE; page += PAGE) call(put_harmless(page));
    stack_t alternate = {.ss_sp = stack, .ss_size = 32 * PAGE};
    TRY(sigaltstack(&alternate, NULL));
    struct sigaction action = {.sa_sigaction = find_frame, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    TRY(sigaction(SIGUSR1, &action, NULL));
    byte content[16] = {0};
    memcpy(content, "\x53\x6a\x01\x58\x31\xc9\x0f\xa2\x89\xc8\x5b\xc3", 12);
    long pid = getpid();
    __asm__ volatile("movdqu (%1), %%xmm0; syscall" :: "a"(62L), "r"(content), "D"(pid), "S"((long)SIGUSR1)
                     : "rcx", "r11", "memory", "xmm0");
    return seen;
}
static unsigned forked_child(void) { /* the child changes its copy of a page that both execute */
    byte *page = executed();
    int ends[2];
    TRY(pipe(ends));
    pid_t child = fork();
    if (!child) {
        unsigned value = call(put_query(page));
        write(ends[1], &value, 4);
        _exit(0);
    }
    unsigned value = 0;
    read(ends[0], &value, 4);
    waitpid(child, NULL, 0);
    return value | call(page);
}
static unsigned forked_parent(void) { /* the parent's CPUID is in the child's copy too */
    byte *page = put_query(fresh(RWX));
    unsigned value = call(page);
    int ends[2];
    TRY(pipe(ends));
    pid_t child = fork();
    if (!child) {
        value = call(page);
        page[200] = 1;
        value |= call(page);
        write(ends[1], &value, 4);
        _exit(0);
    }
    unsigned theirs = 0;
    put_harmless(page);
    call(page);
    read(ends[0], &theirs, 4);
    waitpid(child, NULL, 0);
    put_query(page);
    return value | theirs | call(page);
}
static unsigned modified_program(void) { /* a copy of this program, changed, executed */
    byte *image = NULL;
    int fd = open(self, O_RDONLY);
    TRY(fd);
    struct stat status;
    fstat(fd, &status);
    image = malloc((size_t)status.st_size);
    if (read(fd, image, (size_t)status.st_size) != status.st_size) refuse("read");
    static const char mark[] = "\x90\x90\x90\x90\x90\x90\x31\xc0\x0f\x1f\x44\x00\x08";
    byte *at = memmem(image, (size_t)status.st_size, mark, sizeof mark - 1);
    if (!at) refuse("mark");
    memcpy(at, "\x53\x6a\x01\x58\x31\xc9\x0f\xa2\x89\xc8\x5b\xc3\x90", 13);
    char name[] = "/tmp/program-XXXXXX";
    int copy = mkstemp(name);
    TRY(copy);
    if (write(copy, image, (size_t)status.st_size) != status.st_size) refuse("write");
    fchmod(copy, 0700);
    close(copy);
    char number[16];
    snprintf(number, sizeof number, "%d", report);
    pid_t child = fork();
    if (!child) {
        execl(name, name, "marked", number, NULL);
        refuse("execl");
    }
    waitpid(child, NULL, 0);
    unlink(name);
    _exit(0);
}
__asm__(".text\n.globl marked\nmarked: .byte 0x90,0x90,0x90,0x90,0x90,0x90,0x31,0xc0,0x0f,0x1f,0x44,0x00,0x08\nret\n");
extern unsigned marked(void);

static byte *volatile racing;
static volatile int racing_done;
static void *racer(void *write_alias) {
    byte *page = write_alias;
    for (int i = 0; i < 300; i++) {
        page[AT_CPUID + 1] = 0xa2;
        usleep(100);
        page[AT_CPUID + 1] = 0xa3;
    }
    racing_done = 1;
    return NULL;
}
static void race_code(byte *w) {
    /* at AT_CPUID: 0f a3 f8 (bt eax, edi) or 0f a2, f8 (cpuid; clc); then ret */
    memset(w, 0x90, 64);
    memcpy(w + AT_CPUID, "\x0f\xa3\xf8\xc3", 4);
}
static unsigned race_loop(byte *w, byte *x) {
    race_code(w);
    pthread_t thread;
    unsigned all = 0;
    racing_done = 0;
    pthread_create(&thread, NULL, racer, w);
    while (!racing_done) {
        unsigned long rax = 1, rcx = 0, rdx = 0;
        __asm__ volatile("sub $128, %%rsp; push %%rbx; call *%3; pop %%rbx; add $128, %%rsp"
                         : "+a"(rax), "+c"(rcx), "+d"(rdx) : "r"(x + AT_CPUID) : "rsi", "rdi", "r8", "memory", "cc");
        all |= (unsigned)rcx;
    }
    pthread_join(thread, NULL);
    return all;
}
static unsigned threads_private(void) { byte *page = fresh(RWX); return race_loop(page, page); }
static unsigned threads_aliases(void) {
    int fd = memory_file(1);
    byte *w = map(RW, MAP_SHARED, fd, PAGE), *x = map(RX, MAP_SHARED, fd, PAGE);
    return race_loop(w, x);
}
static volatile int reading;
static void *reader(void *argument) {
    int *ends = argument;
    byte code[2 * PAGE];
    memset(code, 0x90, sizeof code);
    for (int i = 0; i < 200 && reading; i++) {
        memcpy(code, query, sizeof query);
        write(ends[1], code, PAGE);
        read(ends[0], racing, PAGE);
    }
    reading = 0;
    return NULL;
}
static unsigned threads_read(void) { /* read(2) stores into the page that another thread executes */
    int ends[2];
    TRY(pipe(ends));
    racing = put_query(fresh(RWX));
    memset(racing + sizeof query, 0x90, PAGE - sizeof query);
    pthread_t thread;
    reading = 1;
    pthread_create(&thread, NULL, reader, ends);
    unsigned all = 0;
    while (reading) all |= call(racing);
    pthread_join(thread, NULL);
    return all;
}
static unsigned by_vfork(void) { /* another process writes in this address space */
    static byte *page;
    page = executed();
    if (!vfork()) {
        memcpy(page, query, sizeof query);
        _exit(0);
    }
    return call(page);
}
static void on_segv(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    finish((unsigned)((ucontext_t *)context)->uc_mcontext.gregs[REG_RCX]);
}
static void catch_all(void) {
    struct sigaction action = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGTRAP, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}
static unsigned at_the_end(void) { /* the last two bytes of a mapping */
    byte *page = fresh(RWX);
    munmap(page + PAGE, PAGE);
    catch_all();
    return enter(put(page + PAGE - 2, "\x0f\xa2", 2));
}
static void on_trap(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    seen |= (unsigned)((ucontext_t *)context)->uc_mcontext.gregs[REG_RCX];
}
static unsigned single_stepped(void) {
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    sigaction(SIGTRAP, &action, NULL);
    __asm__ volatile("push %%rbx; mov $1, %%eax; xor %%ecx, %%ecx; pushf; orl $0x100, (%%rsp); popf; cpuid; nop;"
                     "pushf; andl $~0x100, (%%rsp); popf; pop %%rbx" ::: "rax", "rcx", "rdx", "memory", "cc");
    return seen;
}
static unsigned breakpoint_before(void) {
    signal(SIGTRAP, SIG_IGN);
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    sigaction(SIGTRAP, &action, NULL);
    return enter(put(fresh(RWX), "\xcc\x0f\xa2\xcc\xc3", 5)) | (seen & ~3u);
}
static unsigned by_iret(void) { /* iretq into the middle of an instruction */
    byte *page = put(fresh(RWX), "\xb8\x0f\xa2\xc3\x00\xc3", 6);
    call(page);
    unsigned ecx = 0, eax = 1;
    __asm__ volatile("push %%rbx; lea 1f(%%rip), %%r9; mov %%rsp, %%r8; push %%r9; mov %%rsp, %%r10; mov %%ss, %%r11; push %%r11;"
                     "push %%r10; pushf; mov %%cs, %%r11; push %%r11; push %2; iretq; 1: pop %%rbx"
                     : "+c"(ecx), "+a"(eax) : "r"(page + 1) : "r8", "r9", "r10", "r11", "rdx", "memory", "cc");
    return ecx;
}
static unsigned by_far_return(void) {
    byte *page = put(fresh(RWX), "\xb8\x0f\xa2\xc3\x00\xc3", 6);
    unsigned ecx = 0, eax = 1;
    __asm__ volatile("push %%rbx; lea 1f(%%rip), %%r9; push %%r9; mov %%cs, %%r11; push %%r11; push %2; lretq; 1: pop %%rbx"
                     : "+c"(ecx), "+a"(eax) : "r"(page + 1) : "r9", "r11", "rdx", "memory", "cc");
    return ecx;
}
static unsigned where_steps_run(void) { /* what was executed out of line may lie about somewhere */
    int fd = memory_file(1);
    byte *w = map(RW, MAP_SHARED, fd, PAGE), *x = map(RX, MAP_SHARED, fd, PAGE);
    put(w, "\xb8\x0f\xa2\xc3\x00\xc3", 6);
    call(x);
    unsigned all = 0;
    for (uintptr_t at = 0x7ffffc000000; at < 0x7ffffc000000 + 24; at++) {
        int ends[2];
        TRY(pipe(ends));
        pid_t child = fork();
        if (!child) {
            report = ends[1];
            catch_all();
            signal(SIGILL, SIG_DFL);
            call(x);
            finish(enter((byte *)at));
        }
        close(ends[1]);
        unsigned value = 0;
        read(ends[0], &value, 4);
        close(ends[0]);
        waitpid(child, NULL, 0);
        all |= value == REFUSED ? 0 : value;
    }
    return all;
}

/* Instructions that are blocked whole: 1 << 25 stands for "has executed". */
static unsigned executes(const byte *code, size_t size) {
    byte *page = fresh(RWX);
    memcpy(page, code, size);
    page[size] = 0xc3;
    byte *area = aligned_alloc(64, 8192);
    memset(area, 0, 8192);
    __asm__ volatile("push %%rbx; sub $136, %%rsp; call *%0; add $136, %%rsp; pop %%rbx"
                     :: "r"(page), "a"(7UL), "d"(0UL), "c"(0UL), "D"(area), "S"(area)
                     : "r8", "r9", "r10", "r11", "memory", "cc", "xmm0", "xmm1");
    return 1u << 25;
}
#define EXECUTE(name, text) static unsigned name(void) { return executes((const byte *)text, sizeof text - 1); }
EXECUTE(do_xgetbv, "\x0f\x01\xd0")
EXECUTE(do_rdrand, "\x48\x0f\xc7\xf2")
EXECUTE(do_rdrand_16, "\x66\x0f\xc7\xf2")
EXECUTE(do_rdseed, "\x48\x0f\xc7\xfa")
EXECUTE(do_rdpid, "\xf3\x0f\xc7\xfa")
EXECUTE(do_rdtscp, "\x0f\x01\xf9")
EXECUTE(do_aesenc, "\x66\x0f\x38\xdc\xc1")
EXECUTE(do_aesenc_rex, "\x66\x44\x0f\x38\xdc\xc1")
EXECUTE(do_aeskeygen, "\x66\x0f\x3a\xdf\xc1\x01")
EXECUTE(do_pclmul, "\x66\x0f\x3a\x44\xc1\x00")
EXECUTE(do_sha, "\x0f\x38\xcb\xc1")
EXECUTE(do_movbe, "\x0f\x38\xf0\x17")
EXECUTE(do_adcx, "\x66\x0f\x38\xf6\xd1")
EXECUTE(do_rdfsbase, "\xf3\x0f\xae\xc2")
EXECUTE(do_xsave, "\x0f\xae\x27")
EXECUTE(do_clflushopt, "\x66\x0f\xae\x3f")

static const struct { const char *name; function run; } variants[] = {
#define V(name) {#name, name}
    V(plain), V(prefix_66), V(prefix_f3), V(prefix_f2), V(prefix_rex), V(prefix_rex_all), V(prefix_cs), V(prefix_gs),
    V(prefix_67), V(prefix_many), V(prefix_too_many), V(prefix_lock), V(in_immediate), V(in_immediate_64),
    V(in_compare), V(in_displacement), V(in_modrm), V(in_sib), V(between_two), V(behind_another), V(deep_in_text), V(across_pages),
    V(across_pages_second_first), V(across_mappings), V(across_pages_later), V(prefix_across_pages), V(jit),
    V(jit_protected), V(jit_execute_only), V(jit_overwritten), V(jit_one_byte), V(self_modifying), V(at_site),
    V(aliases), V(aliases_later), V(alias_hidden), V(alias_private), V(alias_by_descriptor),
    V(alias_writable_executable), V(shared_anonymous), V(file_shared), V(file_private), V(file_rewritten),
    V(file_truncated), V(file_discarded), V(moved), V(moved_then_protected), V(moved_over_code), V(grown), V(flipped),
    V(flipped_unseen), V(on_stack), V(on_heap), V(huge), V(replaced), V(unmapped_and_mapped), V(by_read), V(by_readv),
    V(by_socket), V(by_call_result), V(by_vm_write), V(by_proc_mem), V(trampoline), V(handler), V(signal_frame),
    V(forked_child), V(forked_parent), V(modified_program), V(threads_private), V(threads_aliases), V(threads_read),
    V(by_vfork), V(at_the_end), V(single_stepped), V(breakpoint_before), V(by_iret), V(by_far_return),
    V(where_steps_run), V(do_xgetbv), V(do_rdrand), V(do_rdrand_16), V(do_rdseed), V(do_rdpid), V(do_rdtscp),
    V(do_aesenc), V(do_aesenc_rex), V(do_aeskeygen), V(do_pclmul), V(do_sha), V(do_movbe), V(do_adcx), V(do_rdfsbase),
    V(do_xsave), V(do_clflushopt),
};

int main(int count, char **words) {
    self = words[0];
    if (count == 3 && !strcmp(words[1], "marked")) {
        report = atoi(words[2]);
        finish(marked());
    }
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        if (count > 1 && strcmp(words[1], variants[i].name)) continue;
        int ends[2];
        if (pipe(ends)) return 1;
        fflush(stdout);
        pid_t child = fork();
        if (!child) {
            close(ends[0]);
            report = ends[1];
            alarm(20);
            finish(variants[i].run());
        }
        close(ends[1]);
        unsigned value = 0;
        ssize_t got = read(ends[0], &value, 4);
        close(ends[0]);
        int status = 0;
        waitpid(child, &status, 0);
        if (got == 4 && value == REFUSED) printf("%s refused\n", variants[i].name);
        else if (got == 4) printf("%s %s\n", variants[i].name, value & HIDDEN ? "UNMASKED" : "masked");
        else printf("%s signal %d\n", variants[i].name, WIFSIGNALED(status) ? WTERMSIG(status) : -1);
    }
    return 0;
}
