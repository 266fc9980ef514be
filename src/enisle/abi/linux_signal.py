"""uapi/asm/signal.h, asm-generic/siginfo.h, asm/sigcontext.h, asm/ucontext.h, linux/signalfd.h for x86-64."""

import struct

NSIG = 64
SIGRTMIN = 32
"""The kernel's first real-time signal; the C library keeps the first two for itself."""

SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE = range(1, 9)
SIGKILL, SIGUSR1, SIGSEGV, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGSTKFLT = range(9, 17)
SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGXCPU = range(17, 25)
SIGXFSZ, SIGVTALRM, SIGPROF, SIGWINCH, SIGIO, SIGPWR, SIGSYS = range(25, 32)


def bit(signo: int) -> int:
    """Return the mask of one signal."""
    return 1 << (signo - 1)


def mask_of(*signals: int) -> int:
    return sum(1 << (signo - 1) for signo in signals)


UNBLOCKABLE = mask_of(SIGKILL, SIGSTOP)
STOP_SIGNALS = mask_of(SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU)
IGNORED_BY_DEFAULT = mask_of(SIGCONT, SIGCHLD, SIGWINCH, SIGURG)
CORE_SIGNALS = mask_of(SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSEGV, SIGBUS, SIGSYS, SIGXCPU, SIGXFSZ)
SYNCHRONOUS = mask_of(SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS)
ALL_SIGNALS = (1 << NSIG) - 1

SIG_DFL, SIG_IGN = 0, 1
SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK = 0, 1, 2

SA_NOCLDSTOP, SA_NOCLDWAIT, SA_SIGINFO, SA_EXPOSE_TAGBITS = 1, 2, 4, 0x800
SA_RESTORER, SA_ONSTACK, SA_RESTART = 0x0400_0000, 0x0800_0000, 0x1000_0000
SA_NODEFER, SA_RESETHAND = 0x4000_0000, 0x8000_0000
SA_KNOWN = (
    SA_NOCLDSTOP
    | SA_NOCLDWAIT
    | SA_SIGINFO
    | SA_EXPOSE_TAGBITS
    | SA_RESTORER
    | SA_ONSTACK
    | SA_RESTART
    | SA_NODEFER
    | SA_RESETHAND
)

SS_ONSTACK, SS_DISABLE, SS_AUTODISARM = 1, 2, 1 << 31
MINSIGSTKSZ = 2048

SI_USER, SI_KERNEL, SI_QUEUE, SI_TIMER, SI_MESGQ, SI_ASYNCIO, SI_SIGIO, SI_TKILL = 0, 0x80, -1, -2, -3, -4, -5, -6
ILL_ILLOPN = 2
SYS_SECCOMP = 1
FPE_INTDIV, FPE_INTOVF, FPE_FLTDIV, FPE_FLTOVF, FPE_FLTUND, FPE_FLTRES, FPE_FLTINV = range(1, 8)
SEGV_MAPERR, SEGV_ACCERR = 1, 2
BUS_ADRALN, BUS_ADRERR = 1, 2
TRAP_BRKPT, TRAP_TRACE = 1, 2
CLD_EXITED, CLD_KILLED, CLD_DUMPED, CLD_TRAPPED, CLD_STOPPED, CLD_CONTINUED = range(1, 7)
POLL_CODES = range(1, 7)

SIGINFO_SIZE = 128
SIGINFO_HEAD = struct.Struct("<iii4x")
"""si_signo, si_errno, si_code; the union follows at 16."""
SIGINFO_KILL = struct.Struct("<iI")
SIGINFO_VALUE = struct.Struct("<iIQ")
"""si_pid, si_uid, si_value; for a timer: si_timerid, si_overrun, si_value."""
SIGINFO_TIMER = struct.Struct("<iiQ")
SIGINFO_CHILD = struct.Struct("<iIi4xqq")
SIGINFO_FAULT = struct.Struct("<Q")
SIGINFO_SYS = struct.Struct("<QiI")
SIGINFO_POLL = struct.Struct("<qi")
SIGINFO_CALL = struct.Struct("<QiI")

SIGACTION = struct.Struct("<QQQQ")
"""struct kernel_sigaction: handler, flags, restorer, mask."""
STACK_T = struct.Struct("<Qi4xQ")

UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS = 1, 2, 4
UCONTEXT_HEAD = struct.Struct("<QQQi4xQ")
"""uc_flags, uc_link, uc_stack."""
SIGCONTEXT = struct.Struct("<18Q4H4QQ64x")
"""r8-r15 di si bp bx dx ax cx sp ip flags; cs gs fs ss; err trapno oldmask cr2; fpstate."""
RETURN_ADDRESS_SIZE = 8
UCONTEXT_SIZE = UCONTEXT_HEAD.size + SIGCONTEXT.size + 8
RT_SIGFRAME_SIZE = RETURN_ADDRESS_SIZE + UCONTEXT_SIZE + SIGINFO_SIZE
assert (SIGCONTEXT.size, UCONTEXT_SIZE, RT_SIGFRAME_SIZE) == (256, 304, 440)

FXSAVE_SIZE, XSAVE_HEADER_SIZE = 512, 64
FX_SW_OFFSET = 464
FX_SW_BYTES = struct.Struct("<IIQI28x")
"""magic1, extended_size, xfeatures, xstate_size."""
FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2 = 0x4650_5853, 0x4650_5845
FP_XSTATE_MAGIC2_SIZE = 4

SFD_CLOEXEC, SFD_NONBLOCK = 0o2000000, 0o4000
SIGNALFD_SIGINFO = struct.Struct("<IiiIIiIIIIiiQQQQH2xiQI28x")
"""signo errno code pid uid fd tid band overrun trapno status int ptr utime stime addr addr_lsb syscall …"""
assert SIGNALFD_SIGINFO.size == 128
