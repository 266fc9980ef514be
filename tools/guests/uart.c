/* uart: COM1 for guests whose kernel has no driver for it: what is read goes out, what comes in is written.
 * 8250 by polling (PC16550D, 8.4) through /dev/port: LSR bit 0 says that a byte has come, bit 5 that one may go. */
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

enum { COM1 = 0x3f8, LSR = COM1 + 5, COME = 1, MAY_GO = 0x20 };

static int ports;

static unsigned char in(int port)
{
    unsigned char byte = 0;
    return pread(ports, &byte, 1, port) == 1 ? byte : 0xff;
}

int main(void)
{
    unsigned char bytes[4096];
    if ((ports = open("/dev/port", O_RDWR)) < 0)
        return 1;
    for (;;) {
        struct pollfd input = {.fd = 0, .events = POLLIN};
        int idle = 1;
        while (in(LSR) & COME) {
            bytes[0] = in(COM1);
            idle = 0;
            if (write(1, bytes, 1) != 1)
                return 1;
        }
        if (poll(&input, 1, 0) > 0) {
            ssize_t count = read(0, bytes, sizeof bytes);
            if (count <= 0)
                return 0;
            for (ssize_t at = 0; at < count; at++) {
                while (!(in(LSR) & MAY_GO))
                    ;
                if (pwrite(ports, bytes + at, 1, COM1) != 1)
                    return 1;
            }
            idle = 0;
        }
        if (idle)
            usleep(2000);
    }
}
