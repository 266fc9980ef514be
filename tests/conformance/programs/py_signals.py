"""signal: handlers, masks, waiting, timers, interrupted calls, wakeup descriptors, faults."""

import errno
import os
import select
import signal
import threading
import time

seen: list[str] = []


def note(number: int, frame: object) -> None:
    seen.append(signal.Signals(number).name)


for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGCHLD, signal.SIGVTALRM, signal.SIGINT):
    signal.signal(number, note)
os.kill(os.getpid(), signal.SIGUSR1)
signal.raise_signal(signal.SIGUSR2)
print(seen)
seen.clear()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.kill(os.getpid(), signal.SIGUSR1)
os.kill(os.getpid(), signal.SIGUSR1)
print(seen, signal.sigpending())
print(signal.sigwait([signal.SIGUSR1]), signal.sigpending())
print(signal.sigtimedwait([signal.SIGUSR1], 0.05))
os.kill(os.getpid(), signal.SIGUSR1)
information = signal.sigtimedwait([signal.SIGUSR1], 5)
print(information.si_signo, information.si_code, information.si_pid == os.getpid(), information.si_uid == os.getuid())
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
start = time.monotonic()
while len(seen) < 3:
    signal.pause()
print(set(seen), 0.1 < time.monotonic() - start < 10, signal.setitimer(signal.ITIMER_REAL, 0)[1])
seen.clear()
signal.setitimer(signal.ITIMER_VIRTUAL, 0.02)
deadline = time.monotonic() + 20
while not seen and time.monotonic() < deadline:
    pass
print(seen)


class Interrupted(Exception):
    pass


def interrupt(number: int, frame: object) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    raise Interrupted


signal.signal(signal.SIGALRM, interrupt)
reader, writer = os.pipe()
for name, wait in {
    "read": lambda: os.read(reader, 1),
    "select": lambda: select.select([reader], [], [], 20),
    "sleep": lambda: time.sleep(20),
    "lock": lambda: threading.Event().wait(20),
    "sigwait": lambda: signal.sigwaitinfo([signal.SIGUSR2]),
    "waitpid": lambda: os.waitpid(child, 0),
}.items():
    child = os.fork()
    if not child:
        time.sleep(20)
        os._exit(0)
    try:
        # Again and again: one that comes after Python's last look and before the call would not interrupt it.
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        wait()
    except Interrupted:
        print(name, "interrupted")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
seen.clear()
signal.signal(signal.SIGCHLD, note)
child = os.fork()
if not child:
    os._exit(4)
print(os.waitpid(child, 0)[1] >> 8, seen)
wakeup_reader, wakeup_writer = os.pipe()
os.set_blocking(wakeup_writer, False)
signal.set_wakeup_fd(wakeup_writer)
os.kill(os.getpid(), signal.SIGUSR2)
print(os.read(wakeup_reader, 10))
signal.set_wakeup_fd(-1)
thread = threading.Thread(target=lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1))
seen.clear()
thread.start()
thread.join()
print(seen)
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    print("KeyboardInterrupt")
for number in (signal.SIGKILL, signal.SIGSTOP):
    try:
        signal.signal(number, signal.SIG_IGN)
    except OSError as error:
        print(errno.errorcode[error.errno])
for code in ("import ctypes; ctypes.string_at(8)", "import os; os.abort()", "import os; os.kill(os.getpid(), 15)"):
    child = os.fork()
    if not child:
        os.execlp("python3", "python3", "-c", "import resource; resource.setrlimit(4, (0, 0)); " + code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
child = os.fork()
if not child:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(20)
    os._exit(0)
os.kill(child, signal.SIGSTOP)
print(os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1]))
os.kill(child, signal.SIGCONT)
print(os.WIFCONTINUED(os.waitpid(child, os.WCONTINUED)[1]))
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
