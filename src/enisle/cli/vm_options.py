"""The words of `enisle vm`: its verbs, their options and their help."""

from enisle.cli.grammar import DEBUG, HELP, Group, Option, Verb
from enisle.cli.options import WHERE
from enisle.cli.platform_options import NO_WAIT, PlatformOptions

JSON = Option("--json", "print one JSON record")
QUIET = Option("--quiet", "print names only")
TITLE = "on a platform, when one of the first three is given"
ON_PLATFORM = (TITLE, (*WHERE, NO_WAIT))
HERE = "\nOnly for machines of this computer: at a platform, ask on the machine's host.\n"
RUNS = """
On a platform it runs until it is stopped, and its files are a path of its host
or the name of one of the tenant's images there. --port, --gdb, --cpu and the
console are only for machines of this computer.
"""
CONSOLE = """
the console:
  Ctrl-] leaves it. What is typed goes to the guest, Ctrl-C too. The guest needs console=ttyS0.
"""
EXAMPLES = """
examples:
  enisle vm run --kernel vmlinuz --initrd initrd.gz --append console=ttyS0
  enisle vm run --kernel vmlinuz --disk root.img --append 'root=/dev/vda' --detach --name web
  enisle vm console web
  enisle vm dump web ./web-saved
  enisle --context office vm run --kernel vmlinuz --append console=ttyS0 --name web
  enisle --context office vm ls
"""

RUN: tuple[Group, ...] = (
    (
        "what it boots",
        (
            Option("--kernel", "a Linux kernel (vmlinuz, bzImage), or an ELF image that QEMU can start", "FILE", ""),
            Option("--initrd", "its initial RAM file system", "FILE", ""),
            Option("--append", "its command line (none)", "TEXT", ""),
        ),
    ),
    (
        "what it has",
        (
            Option("--memory", "(512M)", "SIZE", "512M"),
            Option("--processors", "(1)", "N", 1, int),
            Option("--disk", "a raw image, a virtio disk; may be given often", "FILE[:ro]", many="disks"),
            Option("--port", "a virtio port whose output lands in a file; may be given often", "NAME", many="ports"),
            Option("--gdb", "a socket where a debugger may connect"),
            Option("--cpu", "QEMU's processor model (the best that works)", "MODEL", ""),
        ),
    ),
    (
        "how it runs",
        (
            Option("--accelerator", "(auto: KVM if it runs kernels here)", "auto|kvm|tcg", "auto"),
            Option("--name", "(made up)", "NAME", ""),
            Option("--detach", "leave it running; otherwise it ends with this command"),
            Option("--host", "on a platform: where (anywhere)", "NAME", ""),
            JSON,
            QUIET,
            DEBUG,
            HELP,
        ),
    ),
    ON_PLATFORM,
)
ENDING = (
    Option("--force", "give the guest no time"),
    Option("--timeout", "the guest has that long to power off (10)", "SECONDS", 10.0, float),
)


def either(*options: Option) -> tuple[Group, ...]:
    """Return the groups of a verb about machines of this computer, or of a platform."""
    return (("options", (*options, JSON, QUIET, DEBUG, HELP)), ON_PLATFORM)


LOOKING = (("options", (JSON, QUIET, DEBUG, HELP)), (TITLE, WHERE))
VERBS = {
    "run": Verb("enisle vm run [OPTIONS] --kernel FILE", "run a machine, its console on yours", RUN, CONSOLE + RUNS),
    "ls": Verb("enisle vm ls [OPTIONS]", "list your machines", LOOKING),
    "ps": Verb("enisle vm ps [OPTIONS]", "the same as ls", LOOKING),
    "show": Verb("enisle vm show [OPTIONS] NAME", "tell about a machine", LOOKING, most_words=1),
    "stop": Verb(
        "enisle vm stop [OPTIONS] NAME…",
        "end machines: power button, quit, kill",
        either(*ENDING),
        most_words=99,
    ),
    "console": Verb(
        "enisle vm console [OPTIONS] NAME",
        "sit at the console of a machine of this computer",
        (("options", (Option("--log", "print what it wrote, and end"), DEBUG, HELP)),),
        CONSOLE + HERE,
        1,
    ),
    "pause": Verb("enisle vm pause [OPTIONS] NAME…", "stop the processors of machines", either(), most_words=99),
    "resume": Verb("enisle vm resume [OPTIONS] NAME…", "let them go on", either(), most_words=99),
    "dump": Verb(
        "enisle vm dump [OPTIONS] NAME DIRECTORY",
        "save memory and registers of one of this computer to a new directory",
        (("options", (JSON, DEBUG, HELP)),),
        HERE,
        2,
    ),
    "rm": Verb(
        "enisle vm rm [OPTIONS] NAME…",
        "forget machines that have ended",
        either(Option("--force", "end those that have not")),
        most_words=99,
    ),
}
TOP = Verb(
    "enisle vm VERB …",
    "Run full Linux machines by QEMU, jailed: on this computer, or on a platform if one is named.",
    (
        ("verbs", tuple(Option(name, verb.about) for name, verb in VERBS.items())),
        ("options", (*WHERE, DEBUG, HELP)),
    ),
    EXAMPLES,
)


class VmOptions(PlatformOptions):
    """What was typed after `enisle vm`."""

    kernel: str
    initrd: str
    append: str
    disks: list[str]
    ports: list[str]
    gdb: bool
    cpu: str
    accelerator: str
    log: bool

    @property
    def away(self) -> bool:
        """Whether the command line names a platform."""
        return bool(self.context or self.url or self.tenant)
