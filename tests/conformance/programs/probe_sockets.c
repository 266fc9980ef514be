/* Sockets: Unix and loopback, streams and datagrams, descriptors and credentials, errors, shutdown, options. */
#include "probe.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static char b[1 << 20];
static void *drain(void *p) { long total = 0, n; while ((n = recv((int)(long)p, b, 30000, 0)) > 0) total += n; return (void *)total; }

static void unix_sockets(void) {
    int s[2], l = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), c = socket(AF_UNIX, SOCK_STREAM, 0), d, on = 1;
    struct sockaddr_un a = {AF_UNIX, "sock"}, peer;
    socklen_t length = sizeof peer;
    SAY(bind(l, (void *)&a, sizeof a));
    SAY(bind(l, (void *)&a, sizeof a));
    SAY(connect(c, (void *)&a, sizeof a));
    SAY(listen(l, 5));
    SAY(connect(c, (void *)&a, sizeof a));
    SAY(connect(c, (void *)&a, sizeof a));
    SAY(d = accept4(l, (void *)&peer, &length, SOCK_CLOEXEC));
    printf("peer length %u, cloexec %d\n", length, fcntl(d, F_GETFD));
    struct ucred who;
    length = sizeof who;
    SAY(getsockopt(d, SOL_SOCKET, SO_PEERCRED, &who, &length));
    printf("peer is us %d\n", who.pid == getpid() && who.uid == getuid());
    SAY(send(c, "hello", 5, 0));
    SAY(recv(d, b, 3, MSG_PEEK));
    SAY(recv(d, b, 100, MSG_DONTWAIT));
    SAY(recv(d, b, 100, MSG_DONTWAIT));
    SAY(shutdown(c, SHUT_WR));
    SAY(recv(d, b, 100, 0));
    SAY(send(c, "x", 1, MSG_NOSIGNAL));
    SAY(send(d, "back", 4, 0));
    close(d);
    SAY(recv(c, b, 100, 0));
    SAY(recv(c, b, 100, 0));
    SAY(unlink("sock"));
    SAY(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
    SAY(send(s[0], "one", 3, 0));
    SAY(send(s[0], "two!", 4, 0));
    SAY(recv(s[1], b, 2, MSG_TRUNC));
    SAY(recv(s[1], b, 100, 0));
    SAY(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, s));
    SAY(recv(s[0], b, 100, 0));
    SAY(socketpair(AF_INET, SOCK_STREAM, 0, s));
    SAY(socket(AF_UNIX, 77, 0));
    SAY(socket(99, SOCK_STREAM, 0));
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    int file = open("passed", O_CREAT | O_RDWR, 0600);
    write(file, "content", 7);
    union { struct cmsghdr h; char space[CMSG_SPACE(sizeof(int) * 2) + CMSG_SPACE(sizeof(struct ucred))]; } control = {0};
    struct iovec iov = {"fd", 2};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(sizeof(int) * 2)};
    control.h = (struct cmsghdr){CMSG_LEN(sizeof(int) * 2), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.h), (int[]){file, file}, sizeof(int) * 2);
    SAY(sendmsg(s[0], &m, 0));
    close(file);
    setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    send(s[0], "c", 1, 0);
    iov = (struct iovec){b, 100};
    m.msg_controllen = sizeof control;
    SAY(recvmsg(s[1], &m, MSG_CMSG_CLOEXEC));
    int got[2] = {-1, -1};
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
        if (h->cmsg_type == SCM_RIGHTS) memcpy(got, CMSG_DATA(h), sizeof got);
        else printf("control type %d\n", h->cmsg_type);
    SAY(pread(got[0], b, 100, 0));
    printf("cloexec %d\n", fcntl(got[1], F_GETFD));
    m.msg_controllen = sizeof control;
    SAY(recvmsg(s[1], &m, MSG_DONTWAIT));
    signal(SIGPIPE, SIG_IGN);
    close(s[1]);
    SAY(send(s[0], "x", 1, 0));
    a = (struct sockaddr_un){AF_UNIX, "\0abstract"};
    l = socket(AF_UNIX, SOCK_DGRAM, 0);
    SAY(bind(l, (void *)&a, sizeof(sa_family_t) + 9));
    c = socket(AF_UNIX, SOCK_DGRAM, 0);
    SAY(sendto(c, "to abstract", 11, 0, (void *)&a, sizeof(sa_family_t) + 9));
    SAY(recv(l, b, 100, 0));
}

static void loopback(int family) {
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT}, named;
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr *a = family == AF_INET ? (void *)&four : (void *)&six;
    socklen_t size = family == AF_INET ? sizeof four : sizeof six, length = sizeof named;
    int l = socket(family, SOCK_STREAM, 0), c = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0), d, value = 1;
    printf("-- family %d\n", family);
    SAY(setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &value, sizeof value));
    SAY(bind(l, a, size));
    SAY(getsockname(l, (void *)&named, &length));
    printf("a port was given: %d, length %u\n", named.sin6_port != 0, length);
    six.sin6_port = four.sin_port = named.sin6_port;
    SAY(connect(c, a, size) == 0 || errno == EINPROGRESS);
    close(c);
    c = socket(family, SOCK_STREAM, 0);
    SAY(connect(c, a, size));
    listen(l, 5);
    close(c);
    c = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    SAY(connect(c, a, size));
    SAY(poll(&(struct pollfd){c, POLLOUT, 0}, 1, 2000));
    length = sizeof value;
    SAY(getsockopt(c, SOL_SOCKET, SO_ERROR, &value, &length));
    d = accept(l, 0, 0);
    fcntl(c, F_SETFL, 0);
    pthread_t t;
    void *total;
    pthread_create(&t, 0, drain, (void *)(long)d);
    SAY(send(c, b, sizeof b, 0));
    SAY(shutdown(c, SHUT_WR));
    pthread_join(t, &total);
    printf("drained %ld\n", (long)total);
    SAY(send(d, "bye", 3, 0));
    SAY(ioctl(d, FIONREAD, &value));
    SAY(recv(c, b, 3, MSG_WAITALL));
    close(d);
    SAY(recv(c, b, 100, 0));
    value = 0;
    SAY(getsockopt(c, IPPROTO_TCP, TCP_NODELAY, &value, &length));
    SAY(setsockopt(c, IPPROTO_TCP, 9999, &value, sizeof value));
    struct timeval soon = {0, 50000};
    c = socket(family, SOCK_DGRAM, 0);
    setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
    four.sin_port = six.sin6_port = 0;
    SAY(bind(c, a, size));
    SAY(recv(c, b, 100, 0));
    length = sizeof named;
    getsockname(c, (void *)&named, &length);
    SAY(sendto(c, "datagram", 8, 0, (void *)&named, length));
    struct mmsghdr many[3] = {0};
    struct iovec iov[3] = {{b, 4}, {b + 100, 100}, {b + 200, 100}};
    for (int i = 0; i < 3; i++) many[i].msg_hdr.msg_iov = &iov[i], many[i].msg_hdr.msg_iovlen = 1;
    sendto(c, "second", 6, 0, (void *)&named, length);
    SAY(recvmmsg(c, many, 3, MSG_DONTWAIT, 0));
    printf("lengths %u %u, flags %#x\n", many[0].msg_len, many[1].msg_len, many[0].msg_hdr.msg_flags);
    SAY(sendto(c, b, 70000, 0, (void *)&named, length));
    SAY(sendto(socket(family, SOCK_STREAM, 0), b, 1, MSG_NOSIGNAL, 0, 0));
    SAY(accept(c, 0, 0));
    SAY(recv(0, b, 1, 0));
    SAY(getpeername(c, (void *)&named, &length));
}

int main(void) {
    unix_sockets();
    loopback(AF_INET);
    loopback(AF_INET6);
    return 0;
}
