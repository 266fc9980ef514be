"""busybox: every applet that needs no device, and ash scripts. Applets share an island twenty at a time."""

import bz2
import functools
import gzip
import io
import lzma
import subprocess
import zipfile

import pytest

from conformance.applets import APPLETS, EXCLUDED
from conformance.harness import MARK, Runner, SharedRuns

BATCH = 20
NAMES = list(APPLETS)


@functools.cache
def samples() -> dict[str, bytes | str]:
    """Build the sample files, the same ones on every machine."""
    words = [f"{'abcde'[i % 5]}{i * 7919 % 1000:03d}{'elk'[i % 3]}" for i in range(200)]
    text = "\n".join(words) + "\n"
    changed = text.replace(words[20], "changed").replace(words[150] + "\n", "")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr(zipfile.ZipInfo("words", (2020, 2, 2, 2, 2, 2)), text)
    member = f"{'words/':<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(text):<10}`\n"
    tree = {f"t/tree/sub/file{i}": f"content {i}\n" * i for i in range(12)}
    return {
        "t/words": text,
        "t/words.changed": changed,
        "t/words.gz": gzip.compress(text.encode(), mtime=0),
        "t/words.bz2": bz2.compress(text.encode()),
        "t/words.xz": lzma.compress(text.encode()),
        "t/words.lzma": lzma.compress(text.encode(), lzma.FORMAT_ALONE),
        "t/words.zip": archive.getvalue(),
        "t/lib.a": "!<arch>\n" + member + text + "\n" * (len(text) % 2),
        "t/a.patch": unified(text, changed),
        "t/numbers": "".join(f"{i * i % 97}\n" for i in range(300)),
        "t/table": "one:1:300\ntwo:2:20\nthree:3:1000\nlast line:4:a.b\n",
        "t/prose": "An island is a machine of its own, and what runs on it sees nothing else.\n" * 3,
        "t/script.sed": "1d\ns/:/ = /g\n$a\\\nthe end\n",
        "t/empty": "",
        "t/tree/needle": "a needle\n",
        **tree,
    }


def unified(old: str, new: str) -> str:
    import difflib

    return "".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), "words", "words"))


def script(names: list[str]) -> str:
    """Return a shell script that runs the lines of `names`, each in a directory of its own, with a mark before each."""
    lines = ["t=$PWD/t; export t"]
    for name in names:
        line = APPLETS[name]
        line = f"busybox {line}" if line.split(maxsplit=1)[0] == name != "busybox" else line
        quoted = "'" + line.replace("'", "'\\''") + "'"
        lines += [
            f"echo '{MARK}{name}'; mkdir 'd{name}'; cd 'd{name}'",
            f"busybox sh -c {quoted} < /dev/null; echo status $?; cd ..",
        ]
    return "\n".join(lines) + "\n"


@pytest.mark.emulated
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", NAMES)
def test_an_applet_behaves_as_on_linux(name: str, shared: SharedRuns) -> None:
    number = NAMES.index(name) // BATCH
    names = NAMES[number * BATCH : (number + 1) * BATCH]
    files = {**samples(), "run.sh": script(names)}
    shared.compare_section(("applets", number), name, ["busybox", "sh", "run.sh"], files, 200)


def test_every_applet_is_run_or_left_out_for_a_reason() -> None:
    listed = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    assert set(listed) - APPLETS.keys() - EXCLUDED.keys() == set()
    assert APPLETS.keys() & EXCLUDED.keys() == set()


SCRIPTS = {
    "pipes": "busybox seq 1000 | while read n; do [ $((n % 7)) = 0 ] && echo $n; done | busybox tac | busybox head -5",
    "long pipe": "busybox yes line | busybox head -n 100000 | busybox cat | busybox cat | busybox cat | busybox wc -c",
    "here-document": "x=7; cat <<END\nvalue $x $((x * x)) `echo sub`\nEND\ncat <<'END'\nraw $x\nEND",
    "functions and traps": "trap 'echo got TERM' TERM; f() { echo in $1; return 3; }; f a; echo $?; kill $$; echo after",
    "exit trap": "trap 'echo bye; exit 9' EXIT; false || exit 4",
    "background jobs": "for i in 3 2 1; do (sleep 0.$i; echo $i) & done; wait; echo all; sleep 9 & kill $!; wait $!; echo $?",
    "fd juggling": "exec 3>out 4<t/table; echo to three >&3; read a <&4; read b <&4; exec 3>&- 4<&-; cat out; echo $a $b",
    "redirections": "{ echo out; echo err >&2; } > both 2>&1; cat both; echo more >> both; wc -l < both; : > both; ls -l both | wc -l",
    "globs": "cd t/tree/sub; echo file?; echo file[1-3]*; echo nothing*; for f in *1; do echo ${f#file}; done",
    "expansions": 'x=abc/def.txt; echo ${x%.*} ${x##*/} ${#x} ${y:-none} ${x:+set}; set -- "a b" c; echo "$@" $#; IFS=:; set -- $PATH; echo $#',
    "signals of children": "sh -c 'kill -9 $$'; echo $?; sh -c 'kill -SEGV $$'; echo $?; sh -c 'exit 300'; echo $?",
    "missing programs": "no-such-program 2>/dev/null; echo $?; ./t/words 2>/dev/null; echo $?; /usr 2>/dev/null; echo $?",
    "recursion": "ack() { if [ $1 = 0 ]; then r=$(($2 + 1)); elif [ $2 = 0 ]; then ack $(($1 - 1)) 1; else ack $1 $(($2 - 1)); ack $(($1 - 1)) $r; fi; }; ack 2 4; echo $r",
    "broken pipe": "(busybox yes; echo $? >&2) 2>status | busybox head -1; cat status",
    "umask and tests": "umask 027; > f; stat -c %a f; [ -r f ] && echo r; [ -x f ] || echo not x; [ -s f ] || echo empty; mkdir d; stat -c %a d",
}


@pytest.mark.emulated
@pytest.mark.parametrize("title", SCRIPTS)
def test_an_ash_script_behaves_as_on_linux(title: str, run_both: Runner) -> None:
    run_both(["busybox", "sh", "-c", SCRIPTS[title]], files=samples())
