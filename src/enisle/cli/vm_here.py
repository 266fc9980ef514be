"""`enisle vm` on this computer: machines run, listed, shown, watched, saved, ended."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from enisle.cli.carrying import say_json, say_one
from enisle.cli.output import mutter, plain, say, size, table, tell, tell_note
from enisle.cli.ps import age
from enisle.cli.vm_console import Screen
from enisle.cli.vm_options import VmOptions
from enisle.errors import EnisleError, InvalidRequest, StateError
from enisle.island import parse_size
from enisle.linuxvm import VirtualMachine, VmConfig, VmStatus, machines, parse_disk

HEAD = ("NAME", "STATE", "PID", "AGE", "MEMORY", "PROCESSORS", "KERNEL")


# ---- run ---------------------------------------------------------------------------------------------------------


def run(options: VmOptions) -> int:
    """Start a machine; stay with it to its end unless --detach."""
    config = VmConfig(
        kernel=options.kernel,
        initrd=options.initrd,
        append=options.append,
        memory=parse_size(options.memory),
        processors=options.processors,
        disks=tuple(parse_disk(text) for text in options.disks),
        accelerator=options.accelerator,
        name=options.name,
        cpu=options.cpu,
        ports=tuple(options.ports),
        gdb=options.gdb,
        # Whoever sits at the console wants its first words too.
        paused=not options.detach,
    )
    _interruptible()
    begin = time.monotonic()
    machine = VirtualMachine.start(config, detached=options.detach, progress=_progress)
    for note in machine.notes:
        tell_note(note)
    if options.detach:
        return _tell_started(options, machine, time.monotonic() - begin)
    if "ttyS0" not in options.append and not options.json:
        tell_note("the guest may say nothing here: its console is this terminal with --append console=ttyS0")
    with machine:
        return _stay(options, machine, begin)


def _tell_started(options: VmOptions, machine: VirtualMachine, seconds: float) -> int:
    if options.json:
        say_json(machine.status()._asdict() | {"notes": machine.notes})
    elif options.quiet:
        say(f"{machine.name}\n")
    else:
        memory = size(machine.config.memory)
        say(f"started {machine.name} ({machine.accelerator}, {memory}) in {seconds:.1f} s\n")
    return 0


def _stay(options: VmOptions, machine: VirtualMachine, begin: float) -> int:
    if options.json:
        machine.resume()
        reason = machine_end(machine)
        say_json({"name": machine.name, "reason": reason, "seconds": time.monotonic() - begin})
        return _exit_code(reason)
    with machine.console() as connection:
        machine.resume()
        left = Screen(connection).show()
    reason = "stopped" if left and machine.wait(0) is None else machine_end(machine)
    machine.close()
    mutter(f"enisle: {machine.name} ended after {time.monotonic() - begin:.1f} s: {reason}\n")
    return _exit_code(reason)


def machine_end(machine: VirtualMachine) -> str:
    """Wait for the end of a machine; return the reason."""
    while (reason := machine.wait(3600)) is None:
        pass
    return reason


def _exit_code(reason: str) -> int:
    return EnisleError.exit_code if reason.startswith("QEMU") or "killed" in reason else 0


def _interruptible() -> None:
    """Have SIGINT, SIGTERM and SIGHUP unwind: the terminal gets its modes back, the machine ends."""

    def unwind(signo: int, frame: object) -> None:
        raise SystemExit(128 + signo)

    for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signo) is not signal.SIG_IGN:
            signal.signal(signo, unwind)


def _progress(words: str) -> None:
    if sys.stderr.isatty():
        mutter(f"enisle: {words} …\n")


# ---- the others --------------------------------------------------------------------------------------------------


def ls(options: VmOptions) -> int:
    """Print one line for each machine."""
    found = [machine.status() for machine in machines()]
    if options.json:
        say_json([status._asdict() for status in found])
    elif options.quiet:
        say("".join(f"{status.name}\n" for status in found))
    elif found or not sys.stdout.isatty():
        say(table(HEAD, [_row(status) for status in found], sys.stdout.isatty()))
    else:
        say("you have no machines\n")
    return 0


def show(options: VmOptions) -> int:
    """Print all about a machine."""
    found = VirtualMachine.find(_one_name(options)).status()
    return say_one(options, found.name, found._asdict())


def _row(status: VmStatus) -> Sequence[str]:
    state = status.state if not status.reason else f"{status.state} ({plain(status.reason)})"
    pid, passed = (str(status.pid), age(status.seconds)) if status.pid else ("-", "-")
    processors = f"{status.processors} {status.accelerator}"
    return (status.name, state, pid, passed, size(status.memory), processors, plain(status.kernel))


def stop(options: VmOptions) -> int:
    """End machines."""

    def end(machine: VirtualMachine) -> str:
        begin = time.monotonic()
        reason = machine.stop(options.timeout or 0.0, force=options.force)
        return f"stopped {machine.name} in {time.monotonic() - begin:.1f} s: {reason}"

    return _each(options, end)


def pause(options: VmOptions) -> int:
    """Stop the processors of machines."""

    def hold(machine: VirtualMachine) -> str:
        machine.pause()
        return f"paused {machine.name}"

    return _each(options, hold)


def resume(options: VmOptions) -> int:
    """Let the processors of machines go on."""

    def let_go(machine: VirtualMachine) -> str:
        machine.resume()
        return f"resumed {machine.name}"

    return _each(options, let_go)


def rm(options: VmOptions) -> int:
    """Forget machines."""

    def forget(machine: VirtualMachine) -> str:
        if options.force and machine.is_alive:
            machine.stop(force=True)
        machine.remove()
        return f"removed {machine.name}"

    return _each(options, forget)


def _each(options: VmOptions, action: Callable[[VirtualMachine], str]) -> int:
    """Do something to every machine named; go on when one fails. Return the first failure's exit code."""
    if not options.words:
        raise _unnamed(options, "NAME")
    code = 0
    done: list[dict[str, Any]] = []
    for name in options.words:
        try:
            machine = VirtualMachine.find(name)
            told = action(machine)
            done.append({"name": name, "done": told})
            if not options.json:
                say(f"{machine.name}\n" if options.quiet else f"{told}\n")
        except EnisleError as error:
            code = code or error.exit_code
            done.append({"name": name, "error": error.message, "why": error.why, "hint": error.hint})
            if options.debug:
                raise
            tell(error)
    if options.json:
        say_json(done)
    return code


def console(options: VmOptions) -> int:
    """Sit at the console of a machine, or print what it wrote."""
    machine = VirtualMachine.find(_one_name(options))
    if options.log:
        _print_log(machine.console_log)
        return 0
    _interruptible()
    with machine.console() as connection:
        if sys.stdin.isatty():
            mutter(f"enisle: at the console of {machine.name}; Ctrl-] leaves\n")
        Screen(connection).show()
    return 0


def _print_log(path: Path) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StateError("there is no console log", error.strerror or "", "enisle vm ps") from error
    sys.stdout.flush()
    while content:
        content = content[os.write(1, content) :]


def dump(options: VmOptions) -> int:
    """Save a machine."""
    if not options.words:
        raise _unnamed(options, "NAME DIRECTORY")
    if len(options.words) != 2:
        why = "memory and registers are written to a new directory"
        raise InvalidRequest("a dump needs a directory", why, f"enisle vm dump {options.words[0]} DIRECTORY")
    machine = VirtualMachine.find(options.words[0])
    saved = machine.dump(os.path.abspath(options.words[1]), _show_share if sys.stderr.isatty() else None)
    if options.json:
        say_json(saved._asdict())
    else:
        say(f"saved {machine.name} to {saved.path} ({size(saved.written)}) in {saved.seconds:.1f} s\n")
    return 0


def _show_share(done: int, whole: int) -> None:
    mutter(f"\renisle: saving {done * 100 // whole}%" + "\n" * (done >= whole))


def _one_name(options: VmOptions) -> str:
    if not options.words:
        raise _unnamed(options, "NAME")
    return options.words[0]


def _unnamed(options: VmOptions, wanted: str) -> InvalidRequest:
    names = ", ".join(machine.name for machine in machines()[:8])
    why = f"there are {names}" if names else "you have none"
    return InvalidRequest("no machine was named", why, f"enisle {options.verb} {wanted}")


ACTIONS: dict[str, Callable[[VmOptions], int]] = {
    "run": run,
    "ls": ls,
    "ps": ls,
    "show": show,
    "stop": stop,
    "console": console,
    "pause": pause,
    "resume": resume,
    "dump": dump,
    "rm": rm,
}
