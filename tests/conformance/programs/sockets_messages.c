/* Messages: descriptors and credentials on their way, several at once, scattered, cut; interfaces; full queues. */
#include "probe.h"
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>

static int sendfds(int s, int *fds, int n, const char *t) {
    char c[CMSG_SPACE(4 * 300)];
    struct iovec v = {(void *)t, strlen(t)};
    struct msghdr m = {0, 0, &v, 1, c, CMSG_SPACE(4 * n)};
    memset(c, 0, sizeof c);
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(4 * n);
    memcpy(CMSG_DATA(h), fds, 4 * n);
    return sendmsg(s, &m, 0);
}
static int recvfds(int s, int *fds, int fl, int ctl) {
    char c[2000], b[100];
    struct iovec v = {b, 99};
    struct msghdr m = {0, 0, &v, 1, c, ctl};
    int r = recvmsg(s, &m, fl);
    if (r < 0) {
        printf("recvmsg %s\n", strerrorname_np(errno));
        return -1;
    }
    b[r] = 0;
    printf("got %d '%s' flags %x ctl %ld\n", r, b, m.msg_flags, (long)m.msg_controllen);
    int n = 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        printf(" cmsg len %ld lvl %d type %d\n", (long)h->cmsg_len, h->cmsg_level, h->cmsg_type);
        if (h->cmsg_type == SCM_RIGHTS) {
            n = (h->cmsg_len - CMSG_LEN(0)) / 4;
            memcpy(fds, CMSG_DATA(h), 4 * n);
        } else if (h->cmsg_type == SCM_CREDENTIALS) {
            struct ucred u;
            memcpy(&u, CMSG_DATA(h), 12);
            printf(" cred self %d %d %d\n", u.pid == getpid(), u.uid == getuid(), u.gid == getgid());
        }
    }
    return n;
}
int main() {
    setvbuf(stdout, 0, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    int sv[2], p[2], f[300], g[300];
    char b[256];
    socketpair(AF_UNIX, SOCK_STREAM, 0, sv);
    pipe(p);
    f[0] = p[0];
    SAY(sendfds(sv[0], f, 1, "pipe"));
    close(p[0]);
    SAY(recvfds(sv[1], g, 0, 500));
    write(p[1], "data", 4);
    SAY(read(g[0], b, 99));
    printf("cloexec %d fl %x\n", fcntl(g[0], F_GETFD), fcntl(g[0], F_GETFL));
    close(p[1]);
    SAY(read(g[0], b, 9));
    close(g[0]);
    int fd = open("tmpf", O_RDWR | O_CREAT | O_TRUNC, 0644);
    write(fd, "0123456789", 10);
    f[0] = fd;
    lseek(fd, 3, 0);
    SAY(sendfds(sv[0], f, 1, "f"));
    SAY(recvfds(sv[1], g, MSG_CMSG_CLOEXEC, 500));
    printf("cloexec %d\n", fcntl(g[0], F_GETFD));
    SAY(read(g[0], b, 2));
    SAY(lseek(fd, 0, 1));
    SAY(lseek(g[0], 1, 0));
    SAY(lseek(fd, 0, 1));
    fcntl(fd, F_SETFL, O_NONBLOCK | O_APPEND);
    printf("fl %x\n", fcntl(g[0], F_GETFL));
    close(fd);
    SAY(write(g[0], "x", 1));
    close(g[0]);
    // several, same inode, eventfds + epoll
    int e1 = eventfd(1, 0), e2 = eventfd(2, 0), ep = epoll_create1(0);
    struct epoll_event ev = {EPOLLIN, {.u32 = 5}};
    epoll_ctl(ep, EPOLL_CTL_ADD, e2, &ev);
    f[0] = e1;
    f[1] = e2;
    f[2] = ep;
    SAY(sendfds(sv[0], f, 3, "efs"));
    close(e1);
    close(ep);
    SAY(recvfds(sv[1], g, MSG_PEEK, 500));
    for (int i = 0; i < 3; i++) close(g[i]);
    SAY(recvfds(sv[1], g, 0, 500));
    eventfd_t v;
    eventfd_read(g[0], &v);
    printf("%ld\n", (long)v);
    eventfd_read(g[1], &v);
    printf("%ld\n", (long)v);
    SAY(epoll_wait(g[2], &ev, 1, 0));
    eventfd_write(e2, 1);
    SAY(epoll_wait(g[2], &ev, 1, 0));
    fcntl(g[0], F_SETFL, O_NONBLOCK);
    SAY(eventfd_read(g[0], &v));
    for (int i = 0; i < 3; i++) close(g[i]);
    // pipe end sent and socket dropped -> EOF
    int s2[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s2);
    pipe(p);
    f[0] = p[1];
    sendfds(s2[0], f, 1, "w");
    close(p[1]);
    close(s2[0]);
    close(s2[1]);
    SAY(read(p[0], b, 1));
    close(p[0]);
    // socket over socket
    socketpair(AF_UNIX, SOCK_STREAM, 0, s2);
    f[0] = s2[0];
    sendfds(sv[0], f, 1, "s");
    close(s2[0]);
    recvfds(sv[1], g, 0, 500);
    write(s2[1], "via", 3);
    SAY(recv(g[0], b, 9, 0));
    socklen_t l = sizeof(struct ucred);
    struct ucred u;
    SAY(getsockopt(g[0], SOL_SOCKET, SO_PEERCRED, &u, &l));
    printf("%d\n", u.pid == getpid());
    close(g[0]);
    SAY(recv(s2[1], b, 1, 0));
    close(s2[1]);
    // errors
    f[0] = 99;
    SAY(sendfds(sv[0], f, 1, "x"));
    for (int i = 0; i < 254; i++) f[i] = 0;
    SAY(sendfds(sv[0], f, 254, "x"));
    SAY(sendfds(sv[0], f, 253, "y"));
    SAY(recvfds(sv[1], g, 0, CMSG_SPACE(8)));
    close(g[0]);
    close(g[1]);
    SAY(sendfds(sv[0], f, 1, "z"));
    SAY(recvfds(sv[1], g, 0, 0));
    SAY(sendfds(sv[0], f, 1, "z"));
    SAY(recvfds(sv[1], g, 0, 17));
    struct rlimit rl = {12, 1000};
    getrlimit(RLIMIT_NOFILE, &rl);
    rl.rlim_cur = 7;
    setrlimit(RLIMIT_NOFILE, &rl);
    for (int i = 0; i < 9; i++) f[i] = 1;
    SAY(sendfds(sv[0], f, 9, "lim"));
    SAY(recvfds(sv[1], g, 0, 500));
    for (int i = 3; i < 7; i++)
        if (i != sv[0] && i != sv[1])
            close(i);
    rl.rlim_cur = 1000;
    setrlimit(RLIMIT_NOFILE, &rl);
    // creds
    int one = 1;
    SAY(setsockopt(sv[1], SOL_SOCKET, SO_PASSCRED, &one, 4));
    write(sv[0], "c", 1);
    SAY(recvfds(sv[1], g, 0, 500));
    {
        char c[CMSG_SPACE(12)];
        struct iovec w = {"q", 1};
        struct msghdr m = {0, 0, &w, 1, c, sizeof c};
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_CREDENTIALS;
        h->cmsg_len = CMSG_LEN(12);
        struct ucred x = {getpid(), getuid(), getgid()};
        memcpy(CMSG_DATA(h), &x, 12);
        SAY(sendmsg(sv[0], &m, 0));
        SAY(recvfds(sv[1], g, 0, 500));
        h->cmsg_len = 5;
        SAY(sendmsg(sv[0], &m, 0));
        h->cmsg_len = 1000;
        SAY(sendmsg(sv[0], &m, 0));
        h->cmsg_len = CMSG_LEN(4);
        SAY(sendmsg(sv[0], &m, 0));
        h->cmsg_len = CMSG_LEN(12);
        h->cmsg_type = 77;
        SAY(sendmsg(sv[0], &m, 0));
        m.msg_iov = (void *)8;
        SAY(sendmsg(sv[0], &m, 0));
        m.msg_iov = &w;
        m.msg_iovlen = 2000;
        SAY(sendmsg(sv[0], &m, 0));
        SAY(sendmsg(sv[0], (void *)8, 0));
        m.msg_iovlen = 1;
        m.msg_control = (void *)8;
        SAY(sendmsg(sv[0], &m, 0));
        m.msg_control = 0;
        m.msg_controllen = 0;
        m.msg_name = b;
        m.msg_namelen = 5;
        SAY(sendmsg(sv[0], &m, 0));
        m.msg_namelen = -1;
        SAY(sendmsg(sv[0], &m, 0));
        SAY(recvmsg(sv[0], &m, MSG_DONTWAIT));
    }
    // mmsg udp
    int s = socket(AF_INET, SOCK_DGRAM, 0), d = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    bind(s, (void *)&in, sizeof in);
    l = sizeof in;
    getsockname(s, (void *)&in, &l);
    struct mmsghdr mm[5];
    struct iovec iv[5];
    char bb[5][8];
    for (int i = 0; i < 5; i++) {
        sprintf(bb[i], "m%d%.*s", i, i, "xxxxx");
        iv[i] = (struct iovec){bb[i], strlen(bb[i])};
        mm[i] = (struct mmsghdr){{&in, sizeof in, &iv[i], 1}};
    }
    SAY(sendmmsg(d, mm, 5, 0));
    for (int i = 0; i < 5; i++) printf(" %u", mm[i].msg_len);
    puts("");
    struct sockaddr_in src[5];
    for (int i = 0; i < 5; i++) {
        memset(bb[i], 0, 8);
        iv[i] = (struct iovec){bb[i], i == 2 ? 2 : 8};
        mm[i] = (struct mmsghdr){{&src[i], sizeof src[i], &iv[i], 1}};
    }
    struct timespec ts = {1, 0};
    SAY(recvmmsg(s, mm, 4, MSG_WAITFORONE, &ts));
    for (int i = 0; i < 5; i++)
        printf(" %u '%.8s' fl %x nl %d\n", mm[i].msg_len, bb[i], mm[i].msg_hdr.msg_flags, mm[i].msg_hdr.msg_namelen);
    printf("%d\n", ts.tv_sec == 0);
    SAY(recvmmsg(s, mm, 5, MSG_DONTWAIT, 0));
    SAY(recvmmsg(s, mm, 5, MSG_DONTWAIT, 0));
    ts = (struct timespec){0, -1};
    SAY(recvmmsg(s, mm, 5, MSG_DONTWAIT, &ts));
    close(s);
    close(d);
    // scattered
    struct iovec si[4] = {{"ab", 2}, {0, 0}, {"cde", 3}, {"f", 1}};
    SAY(writev(sv[0], si, 4));
    char x1[3] = {0}, x2[9] = {0};
    struct iovec ri[2] = {{x1, 2}, {x2, 8}};
    struct msghdr rm = {0, 0, ri, 2};
    SAY(recvmsg(sv[1], &rm, 0));
    printf("%s|%s\n", x1, x2);
    int n;
    SAY(write(sv[0], "hello", 5));
    SAY(ioctl(sv[1], FIONREAD, &n));
    printf("%d\n", n);
    SAY(ioctl(sv[0], TIOCOUTQ, &n));
    printf("%d\n", n > 0);
    one = 1;
    SAY(ioctl(sv[1], FIONBIO, &one));
    recv(sv[1], b, 9, 0);
    SAY(recv(sv[1], b, 9, 0));
    // interfaces
    s = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq ir;
    memset(&ir, 0, sizeof ir);
    strcpy(ir.ifr_name, "lo");
    SAY(ioctl(s, SIOCGIFFLAGS, &ir));
    printf("%d\n", (ir.ifr_flags & (IFF_UP | IFF_LOOPBACK)) == (IFF_UP | IFF_LOOPBACK));
    SAY(ioctl(s, SIOCGIFADDR, &ir));
    printf("%s\n", inet_ntoa(((struct sockaddr_in *)&ir.ifr_addr)->sin_addr));
    char cb[4096];
    struct ifconf ic = {sizeof cb, {cb}};
    SAY(ioctl(s, SIOCGIFCONF, &ic));
    printf("%s\n", ic.ifc_req[0].ifr_name);
    printf("%u\n", if_nametoindex("lo"));
    struct ifaddrs *ia;
    SAY(getifaddrs(&ia));
    printf("%s\n", ia->ifa_name);
    struct addrinfo *ai;
    SAY(getaddrinfo("localhost", "80", 0, &ai));
    SAY(getaddrinfo("127.0.0.1", "http", 0, &ai));
    // v6
    s = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 i6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    int bound6 = bind(s, (void *)&i6, sizeof i6);
    if (bound6 == 0) {
        listen(s, 1);
        l = sizeof i6;
        getsockname(s, (void *)&i6, &l);
        d = socket(AF_INET6, SOCK_STREAM, 0);
        SAY(connect(d, (void *)&i6, l));
        struct sockaddr_in6 o;
        l = 10;
        int a = accept(s, (void *)&o, &l);
        printf("%d %d\n", a > 0, l);
    }
    // nonblocking connect, unix backlog
    s = socket(AF_INET, SOCK_STREAM, 0);
    in.sin_port = 0;
    bind(s, (void *)&in, sizeof in);
    listen(s, 1);
    l = sizeof in;
    getsockname(s, (void *)&in, &l);
    d = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    SAY(connect(d, (void *)&in, l));
    SAY(connect(d, (void *)&in, l));
    SAY(connect(d, (void *)&in, l));
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un ua = {AF_UNIX, "\0back"};
    bind(s, (void *)&ua, 7);
    listen(s, 0);
    int k = 0;
    for (;;) {
        d = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (connect(d, (void *)&ua, 7))
            break;
        k++;
    }
    printf("backlog %d %s\n", k, strerrorname_np(errno));
    d = socket(AF_UNIX, SOCK_STREAM, 0);
    struct timeval tv = {0, 30000};
    setsockopt(d, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    SAY(connect(d, (void *)&ua, 7));
    pid_t c = fork();
    if (!c) {
        usleep(30000);
        for (int i = 0; i < 2; i++) accept(s, 0, 0);
        usleep(20000);
        _exit(0);
    }
    d = socket(AF_UNIX, SOCK_STREAM, 0);
    SAY(connect(d, (void *)&ua, 7));
    waitpid(c, 0, 0);
    return 0;
}
