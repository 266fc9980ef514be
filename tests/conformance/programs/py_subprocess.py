"""subprocess: pipes, statuses, signals, timeouts, big data, sessions, descriptors."""

import os
import signal
import subprocess
import sys
import tempfile

run = subprocess.run
print(run(["echo", "hello"], capture_output=True, text=True).stdout.strip())
print(run(["sh", "-c", "echo out; echo err >&2; exit 7"], capture_output=True))
print(run(["cat"], input=b"x" * 1_000_000, capture_output=True).stdout == b"x" * 1_000_000)
print(run(["sh", "-c", "kill -9 $$"]).returncode, run(["sh", "-c", "kill -TERM $$"]).returncode)
try:
    run(["sleep", "20"], timeout=0.2)
except subprocess.TimeoutExpired as error:
    print("timeout", error.cmd)
try:
    run(["no-such-program"])
except FileNotFoundError as error:
    print(error.errno, error.filename)
try:
    run(["/etc/passwd"])
except PermissionError as error:
    print(error.errno)
child = subprocess.Popen(
    [sys.executable, "-c", "import sys; print(sys.stdin.read()[::-1])"], stdin=-1, stdout=-1, text=True
)
print(child.communicate("desserts")[0].strip(), child.returncode)
first = subprocess.Popen(["seq", "100000"], stdout=subprocess.PIPE)
second = subprocess.Popen(["tail", "-1"], stdin=first.stdout, stdout=subprocess.PIPE)
first.stdout.close()
print(second.communicate()[0], first.wait())
first = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
second = subprocess.Popen(["head", "-1"], stdin=first.stdout, stdout=subprocess.PIPE)
first.stdout.close()
print(second.communicate()[0], first.wait() == -signal.SIGPIPE)
with tempfile.TemporaryFile() as file:
    run(["sh", "-c", "echo to a file"], stdout=file)
    file.seek(0)
    print(file.read())
reader, writer = os.pipe()
run(["sh", "-c", f"echo passed >&{writer}"], pass_fds=[writer])
os.close(writer)
print(os.read(reader, 100))
print(
    run(
        [sys.executable, "-c", "import os; print(len(os.listdir('/proc/self/fd')))"],
        capture_output=True,
        close_fds=True,
    ).stdout
)
print(
    run(["sh", "-c", "pwd; echo $X $HOME"], cwd="/usr", env={"X": "1"}, capture_output=True, text=True).stdout.split()
)
child = subprocess.Popen(["sh", "-c", "sleep 20 & wait"], start_new_session=True)
print(os.getpgid(child.pid) == child.pid, os.getsid(child.pid) == child.pid)
os.killpg(child.pid, signal.SIGKILL)
print(child.wait())
print(run("echo $((6 * 7)) | cat", shell=True, capture_output=True).stdout, os.system("exit 3") >> 8)
print(run(["true"], preexec_fn=lambda: os.nice(3)).returncode)
print([run(["true"]).returncode for _ in range(20)].count(0))
pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 5"], os.environ)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
pid = os.fork()
if not pid:
    os._exit(6)
print(os.waitstatus_to_exitcode(os.wait4(pid, 0)[1]), subprocess.getoutput("echo popen"))
try:
    os.wait()
except ChildProcessError as error:
    print(error.errno)
