/* Threads and futexes: mutexes of every kind, conditions, barriers, robust and shared ones, cancellation, thread-local storage. */
#include "probe.h"
#include <linux/futex.h>
#include <semaphore.h>

#define THREADS 8
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_barrier_t barrier;
static long counter, atomic_counter, turns;
static int ready, word;
static __thread int mine;
static void *results[THREADS];

static void run(const char *title, void *(*f)(void *)) {
    pthread_t t[THREADS];
    for (long i = 0; i < THREADS; i++) pthread_create(&t[i], 0, f, (void *)i);
    for (int i = 0; i < THREADS; i++) pthread_join(t[i], &results[i]);
    long sum = 0;
    for (int i = 0; i < THREADS; i++) sum += (long)results[i];
    printf("%s: %ld\n", title, sum);
    fflush(stdout);
}
static void *count(void *p) {
    (void)p;
    for (int i = 0; i < 3000; i++) {
        pthread_mutex_lock(&mutex);
        counter++;
        pthread_mutex_unlock(&mutex);
        __atomic_add_fetch(&atomic_counter, 1, __ATOMIC_SEQ_CST);
    }
    return 0;
}
static void *take_turns(void *p) {
    long me = (long)p;
    for (int i = 0; i < 20; i++) {
        pthread_mutex_lock(&mutex);
        while (turns % THREADS != me) pthread_cond_wait(&condition, &mutex);
        turns++;
        pthread_cond_broadcast(&condition);
        pthread_mutex_unlock(&mutex);
    }
    return (void *)1;
}
static void *meet(void *p) { long serial = 0; (void)p; for (int i = 0; i < 20; i++) serial += pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD; return (void *)serial; }
static void *share(void *p) {
    for (int i = 0; i < 200; i++) {
        if (((long)p + i) % 4) { pthread_rwlock_rdlock(&rwlock); mine += counter > 0; }
        else { pthread_rwlock_wrlock(&rwlock); counter++; }
        pthread_rwlock_unlock(&rwlock);
    }
    return (void *)1;
}
static void *own(void *p) { mine = (long)p; for (int i = 0; i < 100; i++) sched_yield(); return (void *)(long)mine; }
static void *allocate(void *p) {
    long n = 0;
    for (int i = 1; i < 300; i++) { char *b = malloc(i * 300); memset(b, i, i * 300); n += b[i]; free(b); }
    (void)p;
    return (void *)(n & 0xff);
}
static void *wait_futex(void *p) { (void)p; __atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST); return (void *)(long)(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, 0) == 0); }
static void cleanup(void *p) { *(int *)p = 1; }
static void *cancelled(void *p) { pthread_cleanup_push(cleanup, p); for (;;) pause(); pthread_cleanup_pop(0); return 0; }
static void *dies_holding(void *p) { pthread_mutex_lock(p); return 0; }
static void *pi(void *p) { for (int i = 0; i < 300; i++) { pthread_mutex_lock(p); counter++; pthread_mutex_unlock(p); } return (void *)1; }
static void *masked(void *p) { sigset_t s; (void)p; sigemptyset(&s); sigaddset(&s, SIGUSR1); int n; pthread_sigmask(SIG_BLOCK, &s, 0); sigwait(&s, &n); return (void *)(long)n; }

int main(void) {
    pthread_t t;
    void *result;
    int flag = 0, status;
    struct timespec deadline;
    run("mutex", count);
    printf("counted %ld %ld\n", counter, atomic_counter);
    run("turns", take_turns);
    printf("turns taken %ld\n", turns);
    pthread_barrier_init(&barrier, 0, THREADS);
    run("barrier", meet);
    run("read-write lock", share);
    run("thread-local", own);
    run("malloc", allocate);

    pthread_t waiters[4];
    for (int i = 0; i < 4; i++) pthread_create(&waiters[i], 0, wait_futex, 0);
    while (__atomic_load_n(&ready, __ATOMIC_SEQ_CST) < 4) sched_yield();
    nap(100);
    SAY(syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1));
    SAY(syscall(SYS_futex, &word, FUTEX_CMP_REQUEUE_PRIVATE, 1, 10, &flag, 1));
    SAY(syscall(SYS_futex, &word, FUTEX_CMP_REQUEUE_PRIVATE, 1, 10, &flag, 0));
    SAY(syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 10));
    SAY(syscall(SYS_futex, &flag, FUTEX_WAKE_PRIVATE, 10));
    for (int i = 0; i < 4; i++) pthread_join(waiters[i], 0);
    SAY(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 5, 0));
    long start = milliseconds();
    SAY(syscall(SYS_futex, &word, FUTEX_WAIT, 0, &(struct timespec){0, 50000000}));
    printf("waited %d\n", milliseconds() - start >= 49);
    SAY(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, &(struct timespec){1, 0}, 0, FUTEX_BITSET_MATCH_ANY));
    SAY(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, 0, 0, 0));
    SAY(syscall(SYS_futex, (char *)&word + 1, FUTEX_WAIT, 0, 0));
    SAY(syscall(SYS_futex, &word, 99, 0, 0));
    SAY(syscall(SYS_futex, &word, FUTEX_WAIT, 0, &(struct timespec){0, -1}));

    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_nsec += 50000000;
    if (deadline.tv_nsec >= 1000000000) deadline.tv_sec++, deadline.tv_nsec -= 1000000000;
    pthread_mutex_lock(&mutex);
    printf("timed wait %s\n", strerrorname_np(pthread_cond_timedwait(&condition, &mutex, &deadline)));
    printf("timed lock %s\n", strerrorname_np(pthread_mutex_timedlock(&mutex, &deadline)));
    pthread_mutex_unlock(&mutex);
    pthread_create(&t, 0, cancelled, &flag);
    nap(20);
    pthread_cancel(t);
    pthread_join(t, &result);
    printf("cancelled %d, cleaned up %d\n", result == PTHREAD_CANCELED, flag);

    struct { pthread_mutex_t robust, shared, pi; sem_t semaphore; int n; } *s = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&s->shared, &a);
    pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&s->robust, &a);
    sem_init(&s->semaphore, 1, 0);
    pthread_create(&t, 0, dies_holding, &s->robust);
    pthread_join(t, 0);
    printf("robust after a thread: %s\n", strerrorname_np(pthread_mutex_lock(&s->robust)));
    pthread_mutex_consistent(&s->robust);
    pthread_mutex_unlock(&s->robust);
    fflush(stdout);
    if (!fork()) { pthread_mutex_lock(&s->robust); _exit(0); }
    wait(0);
    printf("robust after a process: %s\n", strerrorname_np(pthread_mutex_lock(&s->robust)));
    for (int i = 0; i < 3; i++)
        if (!fork()) {
            for (int k = 0; k < 500; k++) { pthread_mutex_lock(&s->shared); s->n++; pthread_mutex_unlock(&s->shared); }
            sem_post(&s->semaphore);
            _exit(0);
        }
    for (int i = 0; i < 3; i++) sem_wait(&s->semaphore);
    for (int i = 0; i < 3; i++) wait(&status);
    printf("shared between processes %d\n", s->n);
    pthread_mutexattr_t b;
    pthread_mutexattr_init(&b);
    pthread_mutexattr_setprotocol(&b, PTHREAD_PRIO_INHERIT);
    printf("priority inheritance %d\n", pthread_mutex_init(&s->pi, &b));
    counter = 0;
    pthread_t pis[4];
    for (int i = 0; i < 4; i++) pthread_create(&pis[i], 0, pi, &s->pi);
    for (int i = 0; i < 4; i++) pthread_join(pis[i], 0);
    printf("counted %ld\n", counter);
    pthread_create(&t, 0, masked, 0);
    nap(50);
    pthread_kill(t, SIGUSR1);
    pthread_join(t, &result);
    printf("a signal for one thread: %ld\n", (long)result);
    int made = 0;
    for (int i = 0; i < 100; i++) made += !pthread_create(&t, 0, own, 0) && !pthread_join(t, 0);
    printf("made and joined %d\n", made);
    SAY(syscall(SYS_gettid) == getpid());
    SAY(syscall(SYS_membarrier, 0, 0, 0) >= 0 ? 1 : -1);
    return 0;
}
