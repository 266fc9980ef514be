/* Sockets by name: addresses that are right and wrong, peers, timeouts, queues, big transfers, SIGPIPE. */
#include "probe.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

static struct sockaddr_un un(const char *p) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strcpy(a.sun_path, p);
    return a;
}
int main() {
    setvbuf(stdout, 0, _IOLBF, 0);
    char b[256];
    int sv[2];
    SAY(socket(AF_UNIX, 99, 0));
    SAY(socket(77, SOCK_STREAM, 0));
    SAY(socket(AF_INET, SOCK_STREAM, 99));
    SAY(socketpair(AF_UNIX, SOCK_STREAM, 0, (void *)8));
    SAY(socketpair(AF_INET, SOCK_STREAM, 0, sv));
    SAY(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    SAY(send(sv[0], "hello", 5, 0));
    SAY(recv(sv[1], b, 3, MSG_PEEK));
    SAY(recv(sv[1], b, 256, 0));
    SAY(recv(sv[1], b, 1, MSG_DONTWAIT));
    struct timeval tv = {0, 50000};
    SAY(setsockopt(sv[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    SAY(recv(sv[1], b, 1, 0));
    struct ucred c;
    socklen_t l = sizeof c;
    SAY(getsockopt(sv[0], SOL_SOCKET, SO_PEERCRED, &c, &l));
    printf("%d %d %d\n", c.pid == getpid(), c.uid == geteuid(), c.gid == getegid());
    close(sv[1]);
    SAY(send(sv[0], "x", 1, MSG_NOSIGNAL));
    SAY(recv(sv[0], b, 1, 0));
    close(sv[0]);
    // path
    mkdir("sub", 0755);
    chdir("sub");
    unlink("s");
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un a = un("s");
    umask(027);
    SAY(bind(s, (void *)&a, sizeof a));
    SAY(bind(s, (void *)&a, sizeof a));
    struct stat st;
    stat("s", &st);
    printf("%o\n", st.st_mode);
    fstat(s, &st);
    printf("fstat %o\n", st.st_mode);
    SAY(listen(s, 1));
    l = sizeof a;
    memset(&a, 'z', sizeof a);
    SAY(getsockname(s, (void *)&a, &l));
    printf("%d %s\n", l, a.sun_path);
    pid_t p = fork();
    if (!p) {
        int q = socket(AF_UNIX, SOCK_STREAM, 0);
        chdir("..");
        a = un("sub/s");
        if (connect(q, (void *)&a, sizeof a))
            _exit(2);
        l = sizeof c;
        getsockopt(q, SOL_SOCKET, SO_PEERCRED, &c, &l);
        if (c.pid != getppid())
            _exit(3);
        write(q, "abc", 3);
        read(q, b, 1);
        _exit(0);
    }
    l = sizeof a;
    memset(&a, 0, sizeof a);
    int n = (accept(s, (void *)&a, &l));
    printf("len %d fam %d\n", l, a.sun_family);
    l = sizeof c;
    getsockopt(n, SOL_SOCKET, SO_PEERCRED, &c, &l);
    printf("peer is child: %d\n", c.pid == p);
    SAY(read(n, b, 10));
    l = sizeof a;
    SAY(getpeername(n, (void *)&a, &l));
    printf("%d\n", l);
    l = sizeof a;
    SAY(getsockname(n, (void *)&a, &l));
    printf("%d %s\n", l, a.sun_path);
    write(n, "x", 1);
    int ws;
    waitpid(p, &ws, 0);
    printf("child %d\n", WEXITSTATUS(ws));
    close(n);
    close(s);
    a = un("s");
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    SAY(connect(s, (void *)&a, sizeof a));
    a = un("nope");
    SAY(connect(s, (void *)&a, sizeof a));
    SAY(connect(s, (void *)&a, 2));
    a.sun_family = AF_INET;
    SAY(connect(s, (void *)&a, sizeof a));
    SAY(bind(s, (void *)&a, sizeof a));
    a = un("/proc/self/x");
    SAY(bind(s, (void *)&a, sizeof a));
    close(s);
    // abstract
    s = socket(AF_UNIX, SOCK_DGRAM, 0);
    memset(&a, 0, sizeof a);
    a.sun_family = AF_UNIX;
    strcpy(a.sun_path + 1, "enisle-t");
    SAY(bind(s, (void *)&a, 11));
    int d = socket(AF_UNIX, SOCK_DGRAM, 0);
    SAY(sendto(d, "dg", 2, 0, (void *)&a, 11));
    l = sizeof a;
    SAY(recvfrom(s, b, 1, MSG_TRUNC, (void *)&a, &l));
    printf("%d\n", l);
    a.sun_family = AF_UNIX;
    SAY(bind(d, (void *)&a, 2));
    l = sizeof a;
    getsockname(d, (void *)&a, &l);
    printf("autobind %d\n", l);
    SAY(sendto(d, "", 0, 0, (void *)"\1\0\0enisle-t", 11));
    SAY(recv(s, b, 9, 0));
    // fill
    memset(&a, 0, sizeof a);
    a.sun_family = AF_UNIX;
    strcpy(a.sun_path + 1, "enisle-t");
    SAY(connect(d, (void *)&a, 11));
    int k = 0;
    while (send(d, "q", 1, MSG_DONTWAIT) == 1) k++;
    printf("queue %d %s\n", k > 0, strerrorname_np(errno));
    SAY(setsockopt(d, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv));
    SAY(send(d, "q", 1, 0));
    close(d);
    close(s);
    d = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    SAY(recv(d, b, 1, 0));
    SAY(send(d, b, 1, MSG_NOSIGNAL));
    close(d);
    // inet
    s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int one = 1;
    SAY(setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, 4));
    SAY(bind(s, (void *)&in, sizeof in));
    SAY(listen(s, 5));
    l = sizeof in;
    SAY(getsockname(s, (void *)&in, &l));
    printf("%d %d\n", l, in.sin_port != 0);
    d = socket(AF_INET, SOCK_STREAM, 0);
    SAY(connect(d, (void *)&in, sizeof in));
    SAY(connect(d, (void *)&in, sizeof in));
    n = (accept4(s, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC));
    printf("%x %x\n", fcntl(n, F_GETFL), fcntl(n, F_GETFD));
    SAY(recv(n, b, 1, 0));
    p = fork();
    if (!p) {
        for (int i = 0; i < 10; i++) {
            usleep(2000);
            send(d, "0123456789", 10, 0);
        }
        _exit(0);
    }
    fcntl(n, F_SETFL, 0);
    SAY(recv(n, b, 100, MSG_WAITALL));
    waitpid(p, 0, 0);
    SAY(shutdown(d, SHUT_WR));
    SAY(recv(n, b, 1, 0));
    SAY(shutdown(n, 9));
    close(n);
    close(s);
    close(d);
    in.sin_port = htons(1);
    d = socket(AF_INET, SOCK_STREAM, 0);
    SAY(connect(d, (void *)&in, sizeof in));
    close(d);
    in.sin_port = htons(9);
    s = socket(AF_INET, SOCK_DGRAM, 0);
    SAY(sendto(s, "x", 1, 0, (void *)&in, sizeof in));
    SAY(connect(s, (void *)&in, sizeof in));
    send(s, "x", 1, 0);
    SAY(recv(s, b, 1, 0));
    int err = 5;
    l = 4;
    SAY(getsockopt(s, SOL_SOCKET, SO_ERROR, &err, &l));
    printf("%d\n", err);
    l = 2;
    SAY(getsockopt(s, SOL_SOCKET, SO_TYPE, &err, &l));
    SAY(getsockopt(s, SOL_SOCKET, 9999, &err, &l));
    SAY(getsockopt(s, 7777, 1, &err, &l));
    SAY(setsockopt(s, SOL_SOCKET, SO_RCVBUF, (void *)8, 4));
    SAY(setsockopt(s, SOL_SOCKET, SO_RCVBUF, &one, 2));
    SAY(getsockopt(open("/dev/null", 0), SOL_SOCKET, SO_TYPE, &err, &l));
    SAY(bind(99, 0, 0));
    SAY(bind(s, (void *)&in, 500));
    SAY(sendto(s, (void *)8, 10, 0, 0, 0));
    SAY(recvfrom(s, (void *)8, 10, MSG_DONTWAIT, 0, 0));
    // big transfer
    socketpair(AF_UNIX, SOCK_STREAM, 0, sv);
    p = fork();
    static char big[5 << 20];
    if (!p) {
        close(sv[0]);
        memset(big, 'k', sizeof big);
        printf("sent %ld\n", (long)send(sv[1], big, sizeof big, 0));
        _exit(0);
    }
    close(sv[1]);
    long tot = 0, r;
    while ((r = read(sv[0], big, sizeof big)) > 0) tot += r;
    printf("got %ld\n", tot);
    waitpid(p, 0, 0);
    signal(13, SIG_DFL);
    p = fork();
    if (!p) {
        socketpair(AF_UNIX, SOCK_STREAM, 0, sv);
        close(sv[1]);
        send(sv[0], "x", 1, 0);
        _exit(0);
    }
    waitpid(p, &ws, 0);
    printf("sig %d\n", WTERMSIG(ws));
    return 0;
}
