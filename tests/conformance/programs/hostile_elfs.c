/* Execute damaged copies of a small program: `hostile_elfs SEED COUNT`. Whatever they do, the parent stays well. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define BASE 0x400000L
#define SIZE 0x3000L
#define CODE 0x200

static unsigned long state;
static unsigned char image[SIZE];

static unsigned long draw(void) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545F4914F6CDD1DUL;
}

static void build(int dynamic, int interpreted) {
    static const unsigned char code[] = {0x31, 0xff, 0xb8, 0xe7, 0, 0, 0, 0x0f, 0x05}; /* exit_group(0) */
    Elf64_Ehdr *header = (void *)image;
    Elf64_Phdr *segments = (void *)(image + sizeof *header);
    long base = dynamic ? 0 : BASE;
    memset(image, 0, SIZE);
    memcpy(header->e_ident, "\177ELF\2\1\1", 7);
    *header = (Elf64_Ehdr){.e_type = dynamic ? ET_DYN : ET_EXEC, .e_machine = EM_X86_64, .e_version = 1, .e_entry = base + CODE,
                           .e_phoff = sizeof *header, .e_ehsize = sizeof *header, .e_phentsize = sizeof *segments, .e_phnum = 3};
    memcpy(header->e_ident, "\177ELF\2\1\1", 7);
    segments[0] = (Elf64_Phdr){PT_LOAD, PF_R | PF_X, 0, base, base, 0x1000, 0x1000, 0x1000};
    segments[1] = (Elf64_Phdr){PT_LOAD, PF_R | PF_W, 0x1000, base + 0x1000, base + 0x1000, 0x1800, 0x5000, 0x1000};
    segments[2] = (Elf64_Phdr){interpreted ? PT_INTERP : PT_NULL, PF_R, 0x180, 0, 0, 8, 8, 1};
    memcpy(image + 0x180, "./other", 8);
    memcpy(image + CODE, code, sizeof code);
}

static void damage(int times) {
    static const unsigned long values[] = {0, 1, 7, 0xfff, 0x1000, 0x7fffffff, 0x80000000, 0x100000000, 0x7fffffffffff,
                                           0x800000000000, 0x8000000000000000, 0xfffffffffffff000, 0xffffffffffffffff};
    while (times--) {
        long at = draw() % 4 ? (long)(draw() % 232) & ~7L : (long)(draw() % 0x300);
        unsigned long value = draw() % 3 ? values[draw() % (sizeof values / sizeof *values)] : draw() >> draw() % 64;
        memcpy(image + at, &value, 1 << draw() % 4);
    }
}

static void store(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    long size = draw() % 8 ? SIZE : (long)(draw() % SIZE);
    if (write(fd, image, size) != size) perror(path);
    close(fd);
}

static void execute(const char *path) {
    pid_t child = fork();
    if (!child) {
        alarm(1);
        execl(path, path, NULL);
        _exit(errno);
    }
    for (int waited = 0; waitpid(child, NULL, WNOHANG) != child; waited++) {
        usleep(500);
        if (waited == 200) kill(child, SIGKILL);
    }
}

static int script(const char *path, const char *line) {
    int status;
    FILE *file = fopen(path, "w");
    fputs(line, file);
    fclose(file);
    chmod(path, 0755);
    pid_t child = fork();
    if (!child) {
        execl(path, path, NULL);
        _exit(errno);
    }
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
}

int main(int argc, char **argv) {
    int count = argc > 2 ? atoi(argv[2]) : 100, status;
    state = (argc > 1 ? strtoul(argv[1], 0, 0) : 1) * 2654435761UL + 88172645463325252UL;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < count; i++) {
        build(draw() % 2, 0);
        if (draw() % 2) damage(1 + draw() % 3);
        store("other");
        build(draw() % 2, draw() % 2);
        damage(draw() % 4);
        store("program");
        execute("./program");
    }
    printf("recursive script: %s\n", strerrorname_np(script("loop", "#!./loop\n")));
    printf("script without interpreter: %s\n", strerrorname_np(script("none", "#!\n")));
    printf("missing interpreter: %s\n", strerrorname_np(script("lost", "#!/no/such\n")));
    printf("a.out: %s\n", strerrorname_np(script("old", "\x07\x01\x64")));
    printf("empty: %s\n", strerrorname_np(script("empty", "")));
    printf("garbage as interpreter: %s\n", strerrorname_np(script("odd", "#!./old\n")));
    build(0, 0);
    store("whole");
    pid_t child = fork();
    if (!child) execl("./whole", "whole", NULL);
    waitpid(child, &status, 0);
    puts("alive");
    return 0;
}
