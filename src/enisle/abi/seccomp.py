"""Seccomp filters: classic BPF opcodes (<linux/filter.h>), `struct seccomp_data`, x86-64 numbers of the calls filtered.

The numbers are those of arch/x86/entry/syscalls/syscall_64.tbl.
"""

# Classic BPF: load a 32-bit word of seccomp_data, compare, return.
BPF_LD_W_ABS, BPF_RET_K = 0x20, 0x06
BPF_JEQ_K, BPF_JGE_K, BPF_JSET_K = 0x15, 0x35, 0x45

SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
SECCOMP_FILTER_FLAG_TSYNC = 1

# struct seccomp_data { int nr; u32 arch; u64 instruction_pointer; u64 args[6]; }
SECCOMP_DATA_NR, SECCOMP_DATA_ARCH, SECCOMP_DATA_ARGS = 0, 4, 16

AUDIT_ARCH_X86_64 = 0xC000_003E
X32_SYSCALL_BIT = 0x4000_0000

CLONE_THREAD = 0x0001_0000
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16

NR_IOCTL, NR_SOCKET, NR_CLONE, NR_KILL, NR_TGKILL, NR_CLONE3 = 16, 41, 56, 62, 234, 435
NR_PRLIMIT64, NR_PROCESS_VM_READV, NR_PROCESS_VM_WRITEV = 302, 310, 311

# fmt: off
NUMBERS = {
    # other programs, other name spaces
    "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "unshare": 272, "setns": 308,
    # the tree of mounts
    "pivot_root": 155, "chroot": 161, "mount": 165, "umount2": 166, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442, "open_tree_attr": 467,
    # files by handle, watching whole mounts, quotas
    "name_to_handle_at": 303, "open_by_handle_at": 304, "fanotify_init": 300, "fanotify_mark": 301, "quotactl": 179,
    "quotactl_fd": 443, "acct": 163, "lookup_dcookie": 212, "ustat": 136, "sysfs": 139, "nfsservctl": 180,
    # other processes
    "ptrace": 101, "kcmp": 312, "pidfd_send_signal": 424, "pidfd_getfd": 438, "process_madvise": 440,
    "process_mrelease": 448, "tkill": 200, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "migrate_pages": 256,
    # the host's kernel
    "create_module": 174, "init_module": 175, "delete_module": 176, "get_kernel_syms": 177, "query_module": 178,
    "finit_module": 313, "kexec_load": 246, "kexec_file_load": 320, "reboot": 169, "swapon": 167, "swapoff": 168,
    "syslog": 103, "_sysctl": 156, "iopl": 172, "ioperm": 173, "vhangup": 153, "uselib": 134, "personality": 135,
    "modify_ldt": 154, "sethostname": 170, "setdomainname": 171,
    # the host's clocks
    "settimeofday": 164, "adjtimex": 159, "clock_settime": 227, "clock_adjtime": 305,
    # large and often broken
    "bpf": 321, "perf_event_open": 298, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "add_key": 248, "request_key": 249, "keyctl": 250,
}
# fmt: on
