"""The words of `enisle island`."""

from enisle.cli.grammar import Group, Option, Verb
from enisle.cli.platform_options import ASKING, NAMES, NO_WAIT, asking

WHAT: tuple[Group, ...] = (
    (
        "what it is",
        (
            Option("--memory", "a quarter of it for written files (4G)", "SIZE", ""),
            Option("--processors", "(the host's)", "N", 0, int),
            Option("--network", "none: a private loopback (default)", "none|host", ""),
            Option("--env", "set an environment variable; often", "K=V", many="variables"),
            Option("--mount", "show a path of its host at DST, read-only unless :rw", "SRC:DST[:ro|rw]", many="mounts"),
            Option("--nodes", "memory nodes with processors of their own (1)", "N", 0, int),
            Option("--cpu", "what its processors may execute; often", "LEVEL|TEMPLATE", many="cpus"),
            Option("--host", "where (anywhere)", "NAME", ""),
        ),
    ),
)
COMMAND = (
    Option("--env", "set an environment variable; often", "K=V", many="variables"),
    Option("--cwd", "start in DIR", "DIR", ""),
    Option("--timeout", "kill it after that long", "SECONDS", None, float),
    Option("--interactive", "-i: standard input goes to it as it comes, however much", ""),
    Option("--tty", "-t: give it a terminal; with -i yours is used by it (Ctrl-P Ctrl-Q leaves)", ""),
    Option("--no-stdin", "give it no standard input; by default what is piped in"),
)
LEAVES = """
Ctrl-C leaves it running and says how to come back; with -it the program gets
Ctrl-C, and Ctrl-P Ctrl-Q leaves. `enisle task attach TASK` comes back.

exit codes:
  the program's own; 128 + N when signal N ended it
  124   --timeout ended the program
  125   the platform could not run it
  126   the program is there but cannot be run
  127   the program was not found
  130   left by Ctrl-C or Ctrl-P Ctrl-Q, or cancelled
"""
FILES = """
  files ls NAME [PATH]       what is in a directory (/)
  files cat NAME PATH        what is in a file, on standard output
  files put NAME PATH [FILE] write FILE (or standard input) to PATH; --mode 755 sets its permissions
"""
ISLAND = {
    "create": Verb(
        "enisle island create [OPTIONS] [NAME] [-- PROGRAM …]",
        "make an island, with a program of its own if you like",
        (*WHAT, ("options", (NO_WAIT, *ASKING))),
    ),
    "run": Verb(
        "enisle island run [OPTIONS] [--] PROGRAM [ARGUMENTS…]",
        "run a program on a new island, and take that away again",
        (
            *WHAT,
            (
                "the program",
                (
                    *COMMAND[1:],
                    Option("--name", "(made up)", "NAME", ""),
                    Option("--keep", "keep the island"),
                    Option("--detach", "leave it running; its output is `enisle island logs`"),
                ),
            ),
            ("options", ASKING),
        ),
        LEAVES,
    ),
    "exec": Verb(
        "enisle island exec [OPTIONS] NAME [--] PROGRAM [ARGUMENTS…]",
        "run a program on an island that is there",
        asking(*COMMAND, Option("--fail", "fail at once when a task holds the island, instead of waiting"), NO_WAIT),
        LEAVES,
    ),
    "ls": Verb("enisle island ls [OPTIONS]", "list islands", asking()),
    "show": Verb("enisle island show [OPTIONS] NAME", "tell about an island", asking(), most_words=1),
    "ps": Verb("enisle island ps [OPTIONS] NAME", "list the processes of an island", asking(), most_words=1),
    "stats": Verb(
        "enisle island stats [OPTIONS] NAME", "tell what an island has counted since it started", asking(), most_words=1
    ),
    "logs": Verb(
        "enisle island logs [OPTIONS] NAME",
        "print what an island's own program wrote",
        asking(
            Option("--follow", "go on until it ends"),
            Option("--tail", "begin N lines before the end", "N", -1, int),
        ),
        most_words=1,
    ),
    "start": Verb("enisle island start [OPTIONS] NAME…", "start islands again", asking(NO_WAIT), most_words=NAMES),
    "stop": Verb("enisle island stop [OPTIONS] NAME…", "end what runs on islands", asking(NO_WAIT), most_words=NAMES),
    "rm": Verb(
        "enisle island rm [OPTIONS] NAME…",
        "take islands away, with what they wrote",
        asking(Option("--force", "also those that run"), NO_WAIT),
        most_words=NAMES,
    ),
    "files": Verb(
        "enisle island files ls|cat|put [OPTIONS] NAME [PATH [FILE]]",
        "look at files of an island, and write them",
        asking(Option("--mode", "put: its permissions, as chmod takes them", "MODE", ""), NO_WAIT),
        FILES,
        4,
    ),
}
