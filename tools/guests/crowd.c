/* crowd N: N processes with names, users, parents and threads to be found by whoever looks at the guest from outside.
 * crowd N churn: besides, processes come and go without end. Says how many there are, then sleeps. */
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void *sleeper(void *name)
{
    prctl(PR_SET_NAME, name, 0, 0, 0);
    for (;;)
        pause();
}

static void be_one(int number)
{
    static char names[3][16];
    char name[16];
    pthread_t thread;
    snprintf(name, sizeof name, "crowd-%d", number);
    prctl(PR_SET_NAME, name, 0, 0, 0);
    for (int i = 0; number % 10 == 0 && i < 3; i++) {
        snprintf(names[i], sizeof names[i], "thread-%d-%d", number, i);
        if (pthread_create(&thread, NULL, sleeper, names[i]))
            _exit(1);
    }
    if (number % 3 && (setgroups(0, NULL) || setresgid(100 + number, 100 + number, 100 + number) ||
                       setresuid(1000 + number, 1000 + number, number % 2 ? 1000 + number : 2000 + number)))
        _exit(1);
}

static void churn(void)
{
    prctl(PR_SET_NAME, "churn", 0, 0, 0);
    for (;;) {
        for (int i = 0; i < 8; i++)
            if (!fork()) {
                prctl(PR_SET_NAME, "mayfly", 0, 0, 0);
                usleep(1000 * (i + 1));
                _exit(0);
            }
        while (wait(NULL) > 0)
            ;
    }
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 0, ready[2];
    char byte = 'x';
    if (pipe(ready))
        return 1;
    for (int number = 0; number < count; number++) {
        if (fork())
            continue;
        if (number % 7 == 0 && fork() < 0) /* every seventh is two, parent and child */
            _exit(1);
        be_one(number);
        if (write(ready[1], &byte, 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    for (int number = 0; number < count + (count + 6) / 7; number++)
        if (read(ready[0], &byte, 1) != 1)
            return 1;
    if (argc > 2 && !strcmp(argv[2], "churn") && !fork())
        churn();
    printf("crowd of %d\n", count + (count + 6) / 7);
    fflush(stdout);
    for (;;)
        pause();
}
