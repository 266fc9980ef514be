/* Futex operations one by one: wake-ups that count, conditions, owners, and what the dead leave behind. */
#include "probe.h"
#include <linux/futex.h>
#include <sys/time.h>

static int word, other, ready, done;
static long futex(int *w, int op, int v, const void *t, int *w2, int v3) { return syscall(SYS_futex, w, op, v, t, w2, v3); }
struct sleeper { int *word; int op, value, bits; long result; };
static void *sleeper(void *p) {
    struct sleeper *s = p;
    __atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
    s->result = futex(s->word, s->op, s->value, 0, 0, s->bits) == -1 ? -errno : 0;
    __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
    return 0;
}
static struct sleeper sleepers[16];
static pthread_t threads[16];
static int count;
static void start(int *w, int op, int value, int bits) {
    sleepers[count] = (struct sleeper){w, op, value, bits, 99};
    pthread_create(&threads[count], 0, sleeper, &sleepers[count]);
    count++;
    while (__atomic_load_n(&ready, __ATOMIC_SEQ_CST) < count) nap(1);
    nap(20);
}
static void settle(int expected) { for (int i = 0; i < 500 && done < expected; i++) nap(2); printf("awake %d\n", done); }
static void finish(void) {
    for (int i = 0; i < count; i++) pthread_join(threads[i], 0);
    for (int i = 0; i < count; i++) if (sleepers[i].result) printf("sleeper %d: %s\n", i, strerrorname_np(-sleepers[i].result));
    count = ready = done = 0;
}
static void wakes(void) {
    for (int i = 0; i < 3; i++) start(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, 1 << i);
    SAY(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 9, 0, 0, 2));
    settle(1);
    SAY(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 9, 0, 0, 0));
    SAY(futex(&word, FUTEX_WAKE, 9, 0, 0, 0)); /* shared and private are two things */
    SAY(futex(&word, FUTEX_WAKE_PRIVATE, 0, 0, 0, 0)); /* none means one */
    settle(2);
    SAY(futex(&word, FUTEX_WAKE_PRIVATE, -1, 0, 0, 0));
    finish();
    start(&word, FUTEX_WAIT, 0, 0);
    SAY(futex(&word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0));
    SAY(futex(&word, FUTEX_WAKE, 1, 0, 0, 0));
    finish();
    SAY(futex((int *)8, FUTEX_WAIT, 0, 0, 0, 0));
    SAY(futex((int *)8, FUTEX_WAKE, 0, 0, 0, 0));
    SAY(futex((int *)8, FUTEX_WAKE_PRIVATE, 0, 0, 0, 0));
    SAY(futex((int *)9, FUTEX_WAKE_PRIVATE, 0, 0, 0, 0));
    SAY(futex(&word, FUTEX_WAIT | FUTEX_CLOCK_REALTIME, 1, 0, 0, 0));
    SAY(futex(&word, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1, 0, 0, 0));
    SAY(futex(&word, FUTEX_WAIT, 1, (void *)8, 0, 0));
    SAY(futex(&word, FUTEX_FD, 1, 0, 0, 0));
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    SAY(futex(&word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &t, 0, -1));
}
static void requeues(void) {
    for (int i = 0; i < 5; i++) start(&word, FUTEX_WAIT_PRIVATE, 0, 0);
    SAY(futex(&word, FUTEX_REQUEUE_PRIVATE, 1, (void *)2, &other, 0));
    settle(1);
    SAY(futex(&other, FUTEX_WAKE_PRIVATE, 9, 0, 0, 0));
    settle(3);
    SAY(futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 0, (void *)9, &other, 7));
    SAY(futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, -1, (void *)9, &other, 0));
    SAY(futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 0, (void *)9, &other, 0));
    SAY(futex(&word, FUTEX_WAKE_PRIVATE, 9, 0, 0, 0));
    SAY(futex(&other, FUTEX_WAKE_PRIVATE, 9, 0, 0, 0));
    finish();
}
static void operations(void) {
    int ops[] = {FUTEX_OP(FUTEX_OP_SET, 5, FUTEX_OP_CMP_EQ, 0), FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_GT, 9), FUTEX_OP(FUTEX_OP_OR, 16, FUTEX_OP_CMP_NE, 0),
        FUTEX_OP(FUTEX_OP_ANDN, 8, FUTEX_OP_CMP_LE, 24), FUTEX_OP(FUTEX_OP_XOR, 0xfff, FUTEX_OP_CMP_LT, 0), FUTEX_OP(FUTEX_OP_ADD, 0xfff, FUTEX_OP_CMP_GE, 0xffe),
        FUTEX_OP((FUTEX_OP_SET | FUTEX_OP_OPARG_SHIFT), 31, FUTEX_OP_CMP_LT, 0), FUTEX_OP((FUTEX_OP_OR | FUTEX_OP_OPARG_SHIFT), 33, FUTEX_OP_CMP_LT, 0)};
    for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++) {
        start(&word, FUTEX_WAIT_PRIVATE, 0, 0);
        int before = other, expected = other;
        start(&other, FUTEX_WAIT_PRIVATE, expected, 0);
        long n = futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &other, ops[i]);
        printf("operation %u on %#x: woke %ld, now %#x\n", i, before, n, other);
        futex(&word, FUTEX_WAKE_PRIVATE, 9, 0, 0, 0), futex(&other, FUTEX_WAKE_PRIVATE, 9, 0, 0, 0);
        finish();
    }
    SAY(futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &other, 0x70000000));
    SAY(futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, (int *)8, 0));
}
static int lock;
static void *owner(void *p) {
    long r = futex(&lock, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0);
    nap(60); /* whoever let go says so first */
    printf("%s owns it: %ld, word %s%s\n", (char *)p, r, (lock & FUTEX_TID_MASK) == syscall(SYS_gettid) ? "mine" : "not mine", lock & FUTEX_OWNER_DIED ? ", its owner died" : "");
    fflush(stdout);
    __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
    nap(*(char *)p == 'd' ? 400 : 50);
    if (*(char *)p != 'd') SAY(futex(&lock, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0));
    return 0;
}
static void *try_lock(void *p) { *(long *)p = futex(&lock, FUTEX_TRYLOCK_PI_PRIVATE, 0, 0, 0, 0) == -1 ? errno : 0; return 0; }
static void *unlock(void *p) { *(long *)p = futex(&lock, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0) == -1 ? errno : 0; return 0; }
static void *timed(void *p) { struct timespec t; clock_gettime(CLOCK_REALTIME, &t); *(long *)p = futex(&lock, FUTEX_LOCK_PI_PRIVATE, 0, &t, 0, 0) == -1 ? errno : 0; return 0; }
static void ask(const char *what, void *(*f)(void *)) { long r; pthread_t t; pthread_create(&t, 0, f, &r); pthread_join(t, 0); printf("%s: %s\n", what, r ? strerrorname_np(r) : "0"); }
static void owners(void) {
    pthread_t a, b;
    SAY(futex(&lock, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0));
    SAY(futex(&lock, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0));
    SAY(lock == syscall(SYS_gettid));
    ask("another tries", try_lock);
    ask("another unlocks", unlock);
    ask("another waits in vain", timed);
    SAY((lock & FUTEX_WAITERS) != 0);
    pthread_create(&a, 0, owner, "first");
    nap(50);
    pthread_create(&b, 0, owner, "second");
    nap(50);
    SAY(futex(&lock, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0));
    pthread_join(a, 0), pthread_join(b, 0);
    SAY(lock);
    pthread_create(&a, 0, owner, "dying");
    nap(10);
    pthread_create(&b, 0, owner, "heir");
    pthread_join(a, 0), pthread_join(b, 0);
    lock = 999999;
    SAY(futex(&lock, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0));
    lock = 0;
    SAY(futex(&lock, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0));
    done = 0;
}
static struct { struct robust_list_head head; struct robust_list entry[3]; struct robust_list pending; int words[4]; } robust;
static void *dies(void *p) {
    (void)p;
    int tid = syscall(SYS_gettid);
    robust.head.futex_offset = (char *)&robust.words[0] - (char *)&robust.entry[0];
    robust.head.list.next = &robust.entry[0];
    for (int i = 0; i < 3; i++) robust.entry[i].next = i < 2 ? &robust.entry[i + 1] : &robust.head.list;
    *(int *)((char *)&robust.entry[0] + robust.head.futex_offset) = tid;
    *(int *)((char *)&robust.entry[1] + robust.head.futex_offset) = 12345;
    *(int *)((char *)&robust.entry[2] + robust.head.futex_offset) = tid | FUTEX_WAITERS;
    SAY(syscall(SYS_set_robust_list, &robust.head, 23));
    SAY(syscall(SYS_set_robust_list, &robust.head, sizeof robust.head));
    void *head;
    size_t size;
    SAY(syscall(SYS_get_robust_list, 0, &head, &size));
    printf("head %d size %zu\n", head == &robust.head, size);
    return 0;
}
static void lists(void) {
    pthread_t t;
    int *last = (int *)((char *)&robust.entry[2] + ((char *)&robust.words[0] - (char *)&robust.entry[0]));
    pthread_create(&t, 0, dies, 0);
    pthread_join(t, 0);
    printf("%#x %d %#x\n", *(int *)((char *)last - 16), *(int *)((char *)last - 8), *last);
    SAY(syscall(SYS_get_robust_list, 999999, &t, &t));
}
static void between_processes(void) {
    int *shared = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fflush(stdout);
    pid_t child = fork();
    if (!child) { *shared = 1; while (*shared == 1) futex(shared, FUTEX_WAIT, 1, 0, 0, 0); _exit(*shared); }
    while (*shared != 1) nap(1);
    nap(30);
    *shared = 42;
    SAY(futex(shared, FUTEX_WAKE, 1, 0, 0, 0));
    int status;
    waitpid(child, &status, 0);
    printf("status %d\n", WEXITSTATUS(status));
    char name[] = "futexXXXXXX";
    int fd = mkstemp(name);
    ftruncate(fd, 2 * PAGE);
    int *a = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, PAGE), *b = mmap(0, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    start(a, FUTEX_WAIT, 0, 0);
    SAY(futex(b + PAGE / 4, FUTEX_WAKE, 1, 0, 0, 0)); /* one file, two mappings */
    finish();
    unlink(name);
}
static void *contender(void *p) {
    int *l = p;
    for (int i = 0; i < 2000; i++) {
        int c = 0;
        if (!__atomic_compare_exchange_n(l, &c, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            if (c != 2) c = __atomic_exchange_n(l, 2, __ATOMIC_SEQ_CST);
            while (c) { futex(l, FUTEX_WAIT_PRIVATE, 2, 0, 0, 0); c = __atomic_exchange_n(l, 2, __ATOMIC_SEQ_CST); }
        }
        word++;
        if (__atomic_exchange_n(l, 0, __ATOMIC_SEQ_CST) == 2) futex(l, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
    }
    return 0;
}
static void contention(void) {
    static int l;
    word = 0;
    for (int i = 0; i < 6; i++) pthread_create(&threads[i], 0, contender, &l);
    for (int i = 0; i < 6; i++) pthread_join(threads[i], 0);
    printf("counted %d\n", word);
    word = 0;
}
int main(void) {
    wakes(), requeues(), operations(), owners(), lists(), between_processes(), contention();
    return 0;
}
