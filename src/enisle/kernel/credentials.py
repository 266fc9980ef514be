"""User, groups and capabilities as the guest sees them (credentials(7), capabilities(7)).

The rules of who may become whom are Linux's; the files of the host decide by the island process's own rights.
"""

from collections.abc import Generator
from contextlib import contextmanager

from enisle.abi import linux_capability as c

ALL_CAPABILITIES = (1 << c.CAP_LAST_CAP + 1) - 1
ISLAND_CAPABILITIES = c.mask_of(
    *(c.CAP_CHOWN, c.CAP_DAC_OVERRIDE, c.CAP_FOWNER, c.CAP_FSETID, c.CAP_KILL, c.CAP_SETGID, c.CAP_SETUID),
    *(c.CAP_SETPCAP, c.CAP_NET_BIND_SERVICE, c.CAP_NET_RAW, c.CAP_SETFCAP),
)
"""What root of an island can really do: no mounts, devices, clocks, limits or priorities of the host."""


class Credentials:
    """Identity of a process. Ids are kept and answered; the host decides with the island process's own rights."""

    __slots__ = (
        "ambient",
        "bounding",
        "effective",
        "egid",
        "euid",
        "fsgid",
        "fsuid",
        "gid",
        "groups",
        "inheritable",
        "permitted",
        "securebits",
        "sgid",
        "suid",
        "uid",
    )

    def __init__(self, uid: int = 0, gid: int = 0, groups: tuple[int, ...] = ()) -> None:
        self.uid = self.euid = self.suid = self.fsuid = uid
        self.gid = self.egid = self.sgid = self.fsgid = gid
        self.groups = groups
        self.bounding = ISLAND_CAPABILITIES
        self.permitted = self.effective = ISLAND_CAPABILITIES if uid == 0 else 0
        self.inheritable = self.ambient = 0
        self.securebits = 0

    def clone(self) -> "Credentials":
        copy = Credentials()
        for name in self.__slots__:
            setattr(copy, name, getattr(self, name))
        return copy

    def may(self, capability: int) -> bool:
        """Return whether the capability is in effect."""
        return bool(self.effective >> capability & 1)

    @property
    def uids(self) -> tuple[int, int, int]:
        return self.uid, self.euid, self.suid

    @property
    def gids(self) -> tuple[int, int, int]:
        return self.gid, self.egid, self.sgid

    @property
    def keep_caps(self) -> bool:
        return bool(self.securebits & c.SECBIT_KEEP_CAPS)

    @contextmanager
    def changing_uids(self) -> Generator[None, None, None]:
        """Adjust the capabilities to a change of the user ids made inside (cap_emulate_setxuid)."""
        was_root, was_effective = 0 in self.uids, self.euid == 0
        yield
        if self.securebits & c.SECBIT_NO_SETUID_FIXUP:
            return
        if was_root and 0 not in self.uids:
            if not self.keep_caps:
                self.permitted = self.effective = 0
            self.ambient = 0
        if was_effective and self.euid != 0:
            self.effective = 0
        elif not was_effective and self.euid == 0:
            self.effective = self.permitted

    def set_fsuid(self, uid: int) -> None:
        """Change the file-system user id alone, with the capabilities that go with it (cap_task_fix_setuid)."""
        old, self.fsuid = self.fsuid, uid
        if self.securebits & c.SECBIT_NO_SETUID_FIXUP:
            return
        if old == 0 and uid != 0:
            self.effective &= ~c.FS_SET
        elif old != 0 and uid == 0:
            self.effective |= self.permitted & c.FS_SET

    def exec(self) -> None:
        """Take on a new program without file capabilities or set-id bits (capabilities(7), execve)."""
        self.suid, self.sgid, self.fsuid, self.fsgid = self.euid, self.egid, self.euid, self.egid
        root = not self.securebits & c.SECBIT_NOROOT and 0 in (self.uid, self.euid)
        if root:
            self.permitted = self.bounding | self.inheritable
            self.effective = self.permitted if self.euid == 0 else self.ambient
        else:
            self.permitted = self.effective = self.ambient
        self.securebits &= ~c.SECBIT_KEEP_CAPS
