"""uapi/linux/time.h, timex.h, timerfd.h, times.h, resource.h: clocks, timers and what they print into."""

import struct

CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID = range(4)
CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME = range(4, 8)
CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM, CLOCK_SGI_CYCLE, CLOCK_TAI = range(8, 12)
TIMER_ABSTIME = 1

# kernel/time/posix-cpu-timers.c: ~pid << 3 | per-thread | which
CPUCLOCK_PROF, CPUCLOCK_VIRT, CPUCLOCK_SCHED = range(3)
CPUCLOCK_CLOCK_MASK, CPUCLOCK_PERTHREAD_MASK = 3, 4

ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF = range(3)
SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD, SIGEV_THREAD_ID = 0, 1, 2, 4

TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET = 1, 2

RUSAGE_SELF, RUSAGE_CHILDREN, RUSAGE_THREAD = 0, -1, 1

NS = 1_000_000_000
TICKS_PER_SECOND = 100
"""USER_HZ: the unit of times(2) and /proc."""
LOW_RESOLUTION_NS = 4_000_000
"""What the coarse clocks of a kernel with CONFIG_HZ=250 answer to clock_getres."""
KTIME_MAX = (1 << 63) - 1

TIMESPEC = struct.Struct("<qq")
"""struct timespec and struct timeval alike."""
ITIMERSPEC = struct.Struct("<qqqq")
"""it_interval, it_value."""
SIGEVENT = struct.Struct("<Qiii")
"""sigev_value, sigev_signo, sigev_notify, sigev_notify_thread_id; 64 bytes in all."""
RUSAGE = struct.Struct("<18q")
TMS = struct.Struct("<4q")

TIMEX = struct.Struct("<I4xqqqqi4xqqqqqq112x")
"""modes offset freq maxerror esterror status constant precision tolerance time.sec time.usec tick; the rest is 0."""
assert TIMEX.size == 208
UNSYNCHRONIZED = (16_000_000, 16_000_000, 0x40, 2, 1, 32_768_000)
"""maxerror esterror status (STA_UNSYNC) constant precision tolerance of a clock nobody disciplines."""
TICK_US = 10_000
TIME_ERROR = 5
