"""Calls that an island does not have, in one table: what an unprivileged container, or a Linux built without, answers.

Privileges nobody can get answer EPERM, parts that are not there ENOSYS.
"""

from errno import ENOSYS, EPERM

from enisle.errors import LinuxError
from enisle.kernel.table import Support, syscall
from enisle.kernel.thread import Thread

MOUNTS = "the tree of mounts belongs to the island's owner"
SPACES = "no name spaces inside an island"
HOST = "the host is not the guest's to change"
OTHERS = "no looking into other processes"
OLD = "gone from Linux or never there on x86-64"
NUMA = "one memory node"
KERNEL_PARTS = "not built in"

ABSENT: tuple[tuple[int, str, int, str], ...] = (
    (101, "ptrace", EPERM, OTHERS),
    (103, "syslog", EPERM, HOST),
    (134, "uselib", ENOSYS, OLD),
    (136, "ustat", ENOSYS, OLD),
    (139, "sysfs", ENOSYS, OLD),
    (153, "vhangup", EPERM, HOST),
    (154, "modify_ldt", ENOSYS, "no segments but flat ones"),
    (155, "pivot_root", EPERM, MOUNTS),
    (156, "_sysctl", ENOSYS, OLD),
    (163, "acct", EPERM, HOST),
    (165, "mount", EPERM, MOUNTS),
    (166, "umount2", EPERM, MOUNTS),
    (167, "swapon", EPERM, HOST),
    (168, "swapoff", EPERM, HOST),
    (169, "reboot", EPERM, HOST),
    (172, "iopl", EPERM, HOST),
    (173, "ioperm", EPERM, HOST),
    (174, "create_module", ENOSYS, OLD),
    (175, "init_module", EPERM, HOST),
    (176, "delete_module", EPERM, HOST),
    (177, "get_kernel_syms", ENOSYS, OLD),
    (178, "query_module", ENOSYS, OLD),
    (180, "nfsservctl", ENOSYS, OLD),
    (181, "getpmsg", ENOSYS, OLD),
    (182, "putpmsg", ENOSYS, OLD),
    (183, "afs_syscall", ENOSYS, OLD),
    (184, "tuxcall", ENOSYS, OLD),
    (185, "security", ENOSYS, OLD),
    (205, "set_thread_area", ENOSYS, OLD),
    (206, "io_setup", ENOSYS, KERNEL_PARTS),
    (207, "io_destroy", ENOSYS, KERNEL_PARTS),
    (208, "io_getevents", ENOSYS, KERNEL_PARTS),
    (209, "io_submit", ENOSYS, KERNEL_PARTS),
    (210, "io_cancel", ENOSYS, KERNEL_PARTS),
    (211, "get_thread_area", ENOSYS, OLD),
    (212, "lookup_dcookie", ENOSYS, OLD),
    (214, "epoll_ctl_old", ENOSYS, OLD),
    (215, "epoll_wait_old", ENOSYS, OLD),
    (236, "vserver", ENOSYS, OLD),
    (240, "mq_open", ENOSYS, KERNEL_PARTS),
    (241, "mq_unlink", ENOSYS, KERNEL_PARTS),
    (242, "mq_timedsend", ENOSYS, KERNEL_PARTS),
    (243, "mq_timedreceive", ENOSYS, KERNEL_PARTS),
    (244, "mq_notify", ENOSYS, KERNEL_PARTS),
    (245, "mq_getsetattr", ENOSYS, KERNEL_PARTS),
    (246, "kexec_load", EPERM, HOST),
    (248, "add_key", ENOSYS, KERNEL_PARTS),
    (249, "request_key", ENOSYS, KERNEL_PARTS),
    (250, "keyctl", ENOSYS, KERNEL_PARTS),
    (272, "unshare", EPERM, SPACES),
    (298, "perf_event_open", EPERM, "no counters of the processor"),
    (308, "setns", EPERM, SPACES),
    (310, "process_vm_readv", EPERM, OTHERS),
    (311, "process_vm_writev", EPERM, OTHERS),
    (312, "kcmp", EPERM, OTHERS),
    (313, "finit_module", EPERM, HOST),
    (317, "seccomp", ENOSYS, "the guest's calls never reach the host; filters of its own are not built in"),
    (320, "kexec_file_load", EPERM, HOST),
    (321, "bpf", EPERM, HOST),
    (323, "userfaultfd", EPERM, "as with vm.unprivileged_userfaultfd=0"),
    (333, "io_pgetevents", ENOSYS, KERNEL_PARTS),
    (425, "io_uring_setup", ENOSYS, KERNEL_PARTS),
    (426, "io_uring_enter", ENOSYS, KERNEL_PARTS),
    (427, "io_uring_register", ENOSYS, KERNEL_PARTS),
    (428, "open_tree", EPERM, MOUNTS),
    (429, "move_mount", EPERM, MOUNTS),
    (430, "fsopen", EPERM, MOUNTS),
    (431, "fsconfig", EPERM, MOUNTS),
    (432, "fsmount", EPERM, MOUNTS),
    (433, "fspick", EPERM, MOUNTS),
    (438, "pidfd_getfd", ENOSYS, "no descriptors of processes"),
    (440, "process_madvise", ENOSYS, "no descriptors of processes"),
    (442, "mount_setattr", EPERM, MOUNTS),
    (443, "quotactl_fd", ENOSYS, MOUNTS),
    (444, "landlock_create_ruleset", ENOSYS, KERNEL_PARTS),
    (445, "landlock_add_rule", ENOSYS, KERNEL_PARTS),
    (446, "landlock_restrict_self", ENOSYS, KERNEL_PARTS),
    (447, "memfd_secret", ENOSYS, KERNEL_PARTS),
    (448, "process_mrelease", ENOSYS, "no descriptors of processes"),
    (450, "set_mempolicy_home_node", ENOSYS, NUMA),
)


def refuse(number: int, name: str, errno: int, note: str) -> None:
    """Enter a call that always fails with `errno`."""

    def handler(thread: Thread) -> None:
        raise LinuxError(errno)

    handler.__name__ = f"sys_{name}"
    syscall(number, Support.ABSENT, note)(handler)


for _number, _name, _errno, _note in ABSENT:
    refuse(_number, _name, _errno, _note)
