"""bash: pipelines, here-documents, job control, arrays, process substitution."""

import pytest

from conformance.harness import Runner

SCRIPTS = {
    "pipelines": "set -o pipefail; seq 500 | grep 7 | sort -rn | head -3; false | true; echo $? ${PIPESTATUS[@]}; ! false; echo $?",
    "a long pipe": "yes line | head -n 200000 | cat | cat | wc -c",
    "here-documents": "x=7; cat <<END\nvalue $x $((x * x)) $(echo sub)\nEND\ncat <<'END'\nraw $x\nEND\ncat <<< \"string $x\"\ncat <<-END\n\ttabs\n\tEND",
    "a large here-document": "x=$(printf 'abc%.0s' {1..40000}); cat <<END | md5sum\n$x\nEND",
    "arrays": "a=(one 'two words' three); a+=(four); echo ${#a[@]} \"${a[1]}\" ${a[@]:1:2} ${!a[@]}; declare -A m=([x]=1 [y]=2); for k in x y; do echo $k=${m[$k]}; done; unset 'a[0]'; echo ${!a[@]}; mapfile -t lines < <(seq 3); echo ${lines[2]}",
    "process substitution": "diff <(seq 5) <(seq 2 6); paste <(echo a) <(echo b); tee >(wc -l > n) < <(seq 10) > /dev/null; sleep 0.3; cat n",
    "jobs": "sleep 20 & sleep 20 & jobs | sed 's/  */ /g'; kill %1; wait %1; echo $?; kill %2; wait %2; echo $?; jobs",
    "job control": "set -m; sleep 20 & kill -STOP %1; sleep 0.2; jobs -s | wc -l; kill -CONT %1; kill %1; wait %1; echo $?; (exit 3) & wait $!; echo $?",
    "process groups": "set -m; (sleep 20; echo never) & p=$!; kill -TERM -$p; wait $p; echo $?; set +m; sleep 0.1 & wait; echo end",
    "wait -n": "(sleep 0.3; exit 3) & (sleep 0.05; exit 4) & wait -n; echo $?; wait -n; echo $?; wait -n; echo $?",
    "coprocess": 'coproc C { while read -r l; do echo "<$l>"; done; }; echo hi >&${C[1]}; read -r r <&${C[0]}; echo $r; exec {C[1]}>&-; wait $C_PID; echo done',
    "traps": "trap 'echo usr1' USR1; trap 'echo bye $?' EXIT; kill -USR1 $$; trap 'echo err' ERR; false; trap - ERR; (trap 'echo sub' EXIT); exit 5",
    "a signal interrupts read and wait": "trap 'echo alarm' USR1; (sleep 0.2; kill -USR1 $$) & wait $!; echo $?; wait; echo $?",
    "sigpipe": "yes | head -1; echo ${PIPESTATUS[@]}",
    "deaths": "bash -c 'kill -9 $$'; echo $?; bash -c 'kill -SEGV $$'; echo $?; bash -c 'exit 300'; echo $?; (ulimit -c 0; bash -c 'kill -ABRT $$'); echo $?",
    "descriptors": "exec 5<>file; echo hello >&5; exec 5>&-; exec 6<file; read -u 6 x; echo $x; exec 6<&-; { echo a; echo b >&2; } 2>&1 | sort; echo x >&9 2>/dev/null; echo $?",
    "read and select": "printf 'a b c\\nd e\\n' | while read -r x y; do echo \"$x|$y\"; done; IFS=, read -ra p <<< 1,2,3; echo ${p[1]}; read -t 0.1 z < <(sleep 2); echo $((${?} > 128)); read -n 3 w <<< abcdef; echo $w",
    "globs": "mkdir -p d/e/f; touch d/a.c d/b.c d/e/c.c; shopt -s globstar nullglob extglob\necho d/**/*.c; echo d/!(a.c); echo none*; for f in d/*.c; do echo ${f/%.c/.o}; done",
    "arithmetic and strings": "((x = 2 ** 40, y = x % 1000)); echo $x $y $((16#ff + 8#17)); s=Hello; echo ${s,,} ${s^^} ${s:1:3} ${s//l/L} ${#s}; printf '%q %05d %x\\n' \"a b\" 42 255; [[ abc123 =~ ([a-z]+)([0-9]+) ]] && echo ${BASH_REMATCH[2]}",
    "functions": "f() { local -n r=$1; r=changed; return 7; }; v=old; f v; echo $? $v; fib() { (($1 < 2)) && echo $1 || echo $(($(fib $(($1 - 1))) + $(fib $(($1 - 2))))); }; fib 8",
    "fork storm": "for i in {1..100}; do /bin/true & done; wait; echo all; for i in {1..50}; do x=$(echo $i); done; echo $x",
    "limits and umask": "umask 077; touch f; stat -c %a f; ulimit -n 64; ulimit -n; ulimit -f 1; (trap '' XFSZ; head -c 5000 /dev/zero > big) 2>/dev/null; stat -c %s big",
    "environment": "export A=1; B=2 env | grep -E '^(A|B)=' | sort; unset A; env | grep -c ^A=; echo ${HOME} $0 $# $-; cd /usr; echo $PWD $OLDPWD | grep -c work; dirs; pushd /etc > /dev/null; popd",
    "missing programs": "no-such-program 2>/dev/null; echo $?; /etc/passwd 2>/dev/null; echo $?; /usr 2>/dev/null; echo $?; printf '#!/no/such\\n' > s; chmod +x s; ./s 2>/dev/null; echo $?",
    "scripts with interpreters": "printf '#!/bin/sh -e\\necho from $0 $#; false; echo never\\n' > s; chmod +x s; ./s a b; echo $?; printf '#!./s\\n' > t; chmod +x t; ./t 2>/dev/null; echo $?; printf 'echo plain\\n' > u; chmod +x u; ./u",
    "time and dates": "TIMEFORMAT=%R; t=$( { time sleep 0.2; } 2>&1 ); [[ $t == 0.[2-9]* ]] && echo slept; s=$SECONDS; echo $((s < 60)); printf '%(%Y)T\\n' 0; echo $((EPOCHSECONDS > 1600000000))",
}


@pytest.mark.parametrize("title", SCRIPTS)
def test_a_bash_script_behaves_as_on_linux(title: str, run_both: Runner) -> None:
    run_both(["bash", "-c", SCRIPTS[title]])


@pytest.mark.emulated(alone=True)
@pytest.mark.parametrize(
    "title", ["pipelines", "here-documents", "arrays", "process substitution", "jobs", "traps", "deaths"]
)
def test_a_bash_script_behaves_as_on_linux_on_the_emulated_processor(title: str, run_both: Runner) -> None:
    run_both(["bash", "-c", SCRIPTS[title]])
