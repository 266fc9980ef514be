"""User, groups and capabilities as the guest sees them (credentials(7))."""


class Credentials:
    """Identity of a process. Ids are kept and answered; the host decides with the island process's own rights."""

    __slots__ = ("ambient", "bounding", "effective", "egid", "euid", "fsgid", "fsuid", "gid", "groups", "inheritable")
    __slots__ += ("keep_caps", "permitted", "securebits", "sgid", "suid", "uid")

    def __init__(self, uid: int = 0, gid: int = 0, groups: tuple[int, ...] = ()) -> None:
        self.uid = self.euid = self.suid = self.fsuid = uid
        self.gid = self.egid = self.sgid = self.fsgid = gid
        self.groups = groups
        full = (1 << 41) - 1
        self.permitted = self.effective = full if uid == 0 else 0
        self.inheritable = self.ambient = 0
        self.bounding = full
        self.securebits = 0
        self.keep_caps = False

    def clone(self) -> "Credentials":
        copy = Credentials()
        for name in self.__slots__:
            setattr(copy, name, getattr(self, name))
        return copy
