"""The words of `enisle vm`: its verbs, their options and their help."""

from typing import Any

from enisle.cli.grammar import DEBUG, HELP, Group, Option, Options, Verb

JSON = Option("--json", "print one JSON record")
QUIET = Option("--quiet", "print names only")
CONSOLE = """
the console:
  Ctrl-] leaves it. What is typed goes to the guest, Ctrl-C too. The guest needs console=ttyS0.
"""
EXAMPLES = """
examples:
  enisle vm run --kernel vmlinuz --initrd initrd.gz --append console=ttyS0
  enisle vm run --kernel vmlinuz --disk root.img --append 'root=/dev/vda console=ttyS0' --memory 2G --detach --name web
  enisle vm console web
  enisle vm dump web ./web-saved
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
            JSON,
            QUIET,
            DEBUG,
            HELP,
        ),
    ),
)
ENDING = (
    Option("--force", "give the guest no time"),
    Option("--timeout", "the guest has that long to power off (10)", "SECONDS", 10.0, float),
)
PLAIN: tuple[Group, ...] = (("options", (JSON, DEBUG, HELP)),)
VERBS = {
    "run": Verb("enisle vm run [OPTIONS] --kernel FILE", "run a machine, its console on yours", RUN, CONSOLE),
    "ps": Verb("enisle vm ps [OPTIONS]", "list your machines", (("options", (JSON, QUIET, DEBUG, HELP)),)),
    "stop": Verb(
        "enisle vm stop [OPTIONS] NAME…",
        "end machines: power button, quit, kill",
        (("options", (*ENDING, JSON, DEBUG, HELP)),),
        most_words=99,
    ),
    "console": Verb(
        "enisle vm console [OPTIONS] NAME",
        "sit at the console of a machine",
        (("options", (Option("--log", "print what it wrote, and end"), DEBUG, HELP)),),
        CONSOLE,
        1,
    ),
    "pause": Verb("enisle vm pause [OPTIONS] NAME…", "stop the processors of machines", PLAIN, most_words=99),
    "resume": Verb("enisle vm resume [OPTIONS] NAME…", "let them go on", PLAIN, most_words=99),
    "dump": Verb(
        "enisle vm dump [OPTIONS] NAME DIRECTORY", "save memory and registers to a new directory", PLAIN, most_words=2
    ),
    "rm": Verb(
        "enisle vm rm [OPTIONS] NAME…",
        "forget machines that have ended",
        (("options", (Option("--force", "end those that have not"), JSON, DEBUG, HELP)),),
        most_words=99,
    ),
}
TOP = Verb(
    "enisle vm VERB …",
    "Run full Linux machines by QEMU, jailed, and look into them.",
    (("verbs", tuple(Option(name, verb.about) for name, verb in VERBS.items())), ("options", (DEBUG, HELP))),
    EXAMPLES,
)


class VmOptions(Options):
    """What was typed after `enisle vm`."""

    kernel: str
    initrd: str
    append: str
    disks: list[str]
    ports: list[str]
    gdb: bool
    cpu: str
    accelerator: str
    detach: bool
    force: bool
    log: bool

    def __init__(self, options: Options) -> None:
        self.__dict__.update(_typed(options))


def _typed(options: Options) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name in ("debug", "closed")}
