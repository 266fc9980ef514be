"""Linux's numbers for x86-64 that the whole kernel room shares (uapi headers); families have their own modules."""

# include/linux/errno.h: never seen by a program; they tell dispatch how an interrupted call goes on.
ERESTARTSYS = 512
"""Restart if the handler has SA_RESTART, else EINTR."""
ERESTARTNOINTR = 513
"""Always restart."""
ERESTARTNOHAND = 514
"""Restart only if no handler ran."""
ERESTART_RESTARTBLOCK = 516
"""Restart by restart_syscall, with the time that is left."""
MAX_ERRNO = 4095

PATH_MAX = 4096
"""Bytes of a path with its final NUL."""
