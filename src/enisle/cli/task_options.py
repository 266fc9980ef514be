"""The words of `enisle task`."""

from enisle.cli.grammar import Option, Verb
from enisle.cli.platform_options import NAMES, NO_WAIT, REASON, asking

IDS = """
TASK is an id, or its beginning.
"""
TELLS_END = """
exit codes: 0 done, 1 failed, 130 cancelled (or left by Ctrl-C: the task goes on)
"""
ATTACHED = """
Ctrl-P Ctrl-Q leaves it running. The exit code is the program's.
"""
TASK = {
    "ls": Verb(
        "enisle task ls [OPTIONS]",
        "list tasks, newest first",
        asking(
            Option("--state", "queued, blocked, running, interrupted, done, failed or cancelled", "STATE", ""),
            Option("--resource", "that hold, held or want it", "KIND/NAME", ""),
            Option("--routine", "of a routine, with or without its @version", "ROUTINE", ""),
            Option("--limit", "no more than N (50)", "N", 50, int),
        ),
    ),
    "show": Verb("enisle task show [OPTIONS] TASK", "tell about a task", asking(), IDS, 1),
    "wait": Verb("enisle task wait [OPTIONS] TASK…", "wait for the end of tasks", asking(), IDS + TELLS_END, NAMES),
    "cancel": Verb(
        "enisle task cancel [OPTIONS] TASK…",
        "end tasks",
        asking(Option("--why", "told to whoever asks", "TEXT", ""), NO_WAIT),
        IDS,
        NAMES,
    ),
    "retry": Verb("enisle task retry [OPTIONS] TASK", "do again what a task did", asking(NO_WAIT), IDS + TELLS_END, 1),
    "output": Verb(
        "enisle task output [OPTIONS] TASK",
        "print what a task's program wrote",
        asking(Option("--follow", "go on until it ends")),
        IDS,
        1,
    ),
    "attach": Verb(
        "enisle task attach [OPTIONS] TASK",
        "come back to a command: its recent output, and your keys go to it",
        asking(),
        IDS + ATTACHED,
        1,
    ),
    "submit": Verb(
        "enisle task submit [OPTIONS] ROUTINE [ARGUMENT=VALUE…]",
        "have a routine run",
        asking(
            Option("--resource", "held while it runs; often", "KIND/NAME[:shared]", many="resources"),
            Option("--host", "where (anywhere)", "NAME", ""),
            Option("--attempts", "tried so often (1)", "N", 1, int),
            Option("--deadline", "failed after that long (none)", "SECONDS", 0.0, float),
            Option("--fail", "fail at once when a resource is in use, instead of waiting"),
            NO_WAIT,
        ),
        "\nA VALUE is JSON, or else text. Example:\n"
        "  enisle task submit platform.sleep@1 seconds=10.0 --resource disk/d1\n" + TELLS_END,
        NAMES,
    ),
    "routines": Verb("enisle task routines [OPTIONS]", "list what tasks can do", asking()),
    "unlock": Verb(
        "enisle task unlock [OPTIONS] KIND/NAME",
        "take a resource from the task that holds it, which ends",
        asking(REASON),
        most_words=1,
    ),
}
