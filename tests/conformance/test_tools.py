"""coreutils, findutils, grep, sed, gawk, tar, gzip and xz over a tree of 2,000 files; perl; the C compiler; static programs."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.harness import MARK, Runner, SharedRuns

MAKE_TREE = r"""
set -e
mkdir tree; cd tree
gawk 'BEGIN {
    srand(7)
    for (i = 0; i < 2000; i++) {
        d = sprintf("d%02d/e%d", i % 40, i % 7)
        if (!(d in seen)) { system("mkdir -p " d); seen[d] = 1 }
        f = d "/" sprintf("f%04d.%s", i, i % 3 ? "txt" : "dat")
        n = i * 37 % 90
        for (j = 0; j < n; j++) print i, j, (i * 31 + j * 17) % 1009, (j % 11 == 0 ? "needle" : "hay") > f
        printf "%s", "" > f
        close(f)
    }
}'
ln -s d00 link; ln d01/e1/f0001.txt hard; mkfifo fifo; chmod 750 d03; touch -d '2020-02-02 02:02:02 UTC' d04
cd ..
"""

OVER_THE_TREE = {
    "find": "find tree -type f | wc -l; find tree -name '*1?.txt' -size -2k | sort | md5sum; find tree -type l -printf '%p %l\\n'; find tree -perm 750 -o -type p -o -newermt 2020-02-02 ! -newermt 2020-02-03 | sort; find tree -links 2 -type f | sort",
    "find -exec and xargs": "find tree -name 'f00*' -exec basename {} \\; | sort | head; find tree -type f -print0 | sort -z | xargs -0 -n 400 cat | md5sum; find tree -name '*.dat' -print0 | xargs -0 -P 4 -n 100 wc -l | grep -c total",
    "coreutils digests": "find tree -type f | sort | xargs sha256sum | sha256sum; find tree -type f | sort | head -50 | xargs cksum | tail -1; find tree -type f | sort | xargs b2sum | md5sum",
    "ls, stat and du": "ls -R tree | md5sum; ls -lR --time-style=+ tree | awk '{print $1}' | sort | uniq -c; find tree -type f | sort | xargs stat -c '%n %s %a %F %h' | md5sum; du -a --apparent-size -b tree/d00/e0 | sort -k2 | grep txt; ls -S tree/d05/e5 | head -3",
    "cp, mv, rm, install": "cp -a tree copy; diff -r --no-dereference tree/d00 copy/d00 && echo same; find copy | wc -l; mv copy/d01 copy/moved; ls copy | md5sum; rm -rf copy/d0*; find copy | wc -l; install -D -m 711 tree/hard x/y/z; stat -c %a x/y/z; cp -al copy linked; rm -r copy; find linked | wc -l; ln -sfn linked s; readlink s; rmdir linked 2>/dev/null; echo $?",
    "sort, uniq, cut, join, comm": "cat tree/d0*/e*/*.txt > all; sort -k3,3n -k1,1n all | md5sum; cut -d' ' -f3 all | sort | uniq -c | sort -rn | head -5; sort -u -S 100K all | wc -l; sort -c all 2>/dev/null; echo $?; comm -12 <(seq 1 100 | sort) <(seq 50 3 150 | sort) | wc -l; join <(seq 9 | sed 's/$/ a/') <(seq 5 12 | sed 's/$/ b/'); split -l 1000 all part; ls part* | wc -l; tac all | head -1; shuf all | sort | md5sum; sort all | md5sum; sort --parallel=4 -R all | wc -l; csplit -s all 100 200; wc -l xx*",
    "text utilities": "f=tree/d02/e2/f0002.txt; nl $f | tail -1; fold -w 7 tree/d00/e3/f0080.txt | head -3; expand $f | unexpand -a | md5sum; od -c $f | tail -3; tr a-z A-Z < $f | tail -1; wc $f; head -c 20 $f; tail -n +70 $f; paste -s -d, <(seq 9); fmt -w 30 <<< 'a long line of many words that must be wrapped somewhere'; pr -l 20 -h x -D now <(seq 5) | md5sum; base64 $f | md5sum; numfmt --to=iec 1234567; seq -f %03g 3; factor 9999999967; tsort <<< 'a b b c'; ptx <<< 'one two' | wc -l",
    "grep": "grep -rc needle tree --include='*.txt' | sort | md5sum; grep -rlE '^(7|13) [0-9]+ 5' tree | sort; grep -rn -m1 ' 1008 ' tree | sort | head -3; grep -rLF needle tree --include='*.dat' | wc -l; grep -oP '\\d+(?= needle)' tree/d02/e2/f0002.txt | head -3; grep -q nothing-at-all -r tree; echo $?; zgrep -c needle <(gzip -c tree/d02/e2/f0002.txt)",
    "sed": "sed -n '1~20{s/ / : /gp}' tree/d02/e2/f0002.txt; cp -r tree/d10 w; find w -type f | xargs sed -i 's/needle/pin/g; 3d'; cat $(find w -type f | sort) | md5sum; sed -e ':a;N;$!ba;s/\\n/,/g' <(seq 10); sed -E 's/([0-9]+) ([0-9]+)/\\2 \\1/;y/hay/HAY/' tree/d02/e2/f0002.txt | head -2",
    "gawk": 'gawk \'{s[$3 % 10] += $2; n[$4]++} END {for (i = 0; i < 10; i++) print i, s[i]; print n["needle"], n["hay"]}\' $(find tree -name \'*.txt\' | sort); gawk \'BEGIN {while (("seq 5" | getline x) > 0) t += x; print t; print strftime("%F", 0, 1); printf "%.6f\\n", atan2(0, -1); print toupper(substr("island", 3)); n = split("a:b:c", p, ":"); print n, p[2]; cmd = "sort -r"; print "x" |& cmd; print "y" |& cmd; close(cmd, "to"); while ((cmd |& getline l) > 0) print l}\'',
    "tar": "tar cf a.tar --sort=name tree; tar tf a.tar | md5sum; mkdir out; tar xf a.tar -C out; diff -r --no-dereference tree/d00 out/tree/d00 && find out | wc -l; stat -c '%a %Y' out/tree/d03 out/tree/d04 | head -1; tar czf a.tgz tree/d1*; tar xzOf a.tgz tree/d11/e4/f0011.txt | md5sum; tar cJf a.txz tree/d20; tar tJf a.txz | wc -l; tar c tree/d30 | tar x -C out; ls out; tar --delete -f a.tar tree/hard; tar tf a.tar | wc -l",
    "gzip and xz": "cat tree/d1*/e*/* > all; gzip -k9 all; gzip -l all.gz | tail -1 | awk '{print $2}'; zcat all.gz | cmp - all && echo same; xz -k -T2 all; xz -dc all.xz | md5sum; xz -t all.xz; echo $?; find tree/d2* -type f | xargs gzip -q; find tree/d2* -name '*.gz' | wc -l; gunzip -r tree/d2*; find tree -type f | wc -l; xz -9 -c < all | xz -d | cmp - all && echo same",
    "process utilities": "timeout 0.2 sleep 20; echo $?; nice -n 5 nice; nohup echo x 2>/dev/null; env -i A=b env; printenv HOME; id -u; test -r tree/hard; echo $?; expr length island; sleep 0.05; nproc --all > /dev/null; echo $?; stdbuf -oL echo y; kill -l 15; pathchk tree; tty < /dev/null; uname -s; date -u -d @0 +%FT%T; yes | head -c 1000000 | md5sum; mktemp -u XXX | wc -c; truncate -s 1M t; stat -c %s t; dd if=t of=u bs=64K conv=sparse status=none; stat -c %s u; sync u; shred -u u; ls u 2>/dev/null; echo $?; mkfifo p; cat p & echo through > p; wait; df . > /dev/null; echo $?; realpath -m a/../b --relative-to=.; readlink -e none; echo $?; chmod -R u=rwX,go= tree/d00; stat -c %a tree/d00/e0;tee x < tree/hard > y; cmp x y; echo $?",
}

PERL = {
    "text": "my %n; for (1..20000) { $n{$_ * 7919 % 101}++ } print join(',', map {\"$_=$n{$_}\"} (sort {$a <=> $b} keys %n)[0..4]), qq(\\n); $_ = 'the island'; s/(\\w+) (\\w+)/$2 $1/; print uc, qq(\\n); print sprintf('%.10f', 4 * atan2(1, 1)), qq(\\n); print sort {$b <=> $a} map {$_ * 2} grep {$_ % 2} 1..9; print qq(\\n)",
    "processes": "$| = 1; my $pid = fork; if (!$pid) { print qq(child\\n); exit 3 } waitpid $pid, 0; print $? >> 8, qq(\\n); print `echo from a shell`; open my $p, '-|', 'seq 3' or die; print while <$p>; close $p; pipe my $r, my $w; if (!fork) { close $r; print $w 'through'; exit } close $w; print <$r>, qq(\\n); wait; system 'sh', '-c', 'exit 4'; print $? >> 8, qq(\\n); exec 'echo', 'replaced'",
    "signals": "$SIG{ALRM} = sub { die qq(alarm\\n) }; eval { alarm 1; select undef, undef, undef, 20; }; print $@; $SIG{USR1} = sub { print qq(usr1\\n) }; kill USR1 => $$; $SIG{CHLD} = sub { print qq(chld\\n) }; if (!fork) { exit } sleep 5; wait",
    "files": "use File::Find; use File::Temp; mkdir 'd'; for (1..30) { open my $f, '>', qq(d/$_) or die; print $f $_ x $_; close $f } my $n = 0; find(sub { $n += -s if -f }, 'd'); print qq($n\\n); unlink glob 'd/*'; rmdir 'd' or die; print -e 'd' ? 1 : 0, qq(\\n); my $t = File::Temp->new; print $t 'x' x 1000; $t->flush; print -s $t->filename, qq(\\n); use Fcntl ':flock'; flock $t, LOCK_EX or die; print qq(locked\\n)",
    "sockets": "use IO::Socket::INET; my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die $@; my $port = $s->sockport; if (!fork) { my $c = IO::Socket::INET->new(qq(127.0.0.1:$port)) or die; print $c qq(hello\\n); print scalar <$c>; exit } my $c = $s->accept; my $l = <$c>; print $c uc $l; close $c; wait",
    "modules": "use POSIX; use Digest::SHA 'sha256_hex'; use List::Util qw(sum max); use Time::HiRes 'usleep'; use Storable; print sha256_hex('island'), ' ', sum(1..100), ' ', max(3, 9, 4), ' ', POSIX::floor(-3.5), qq(\\n); usleep 1000; print scalar @{Storable::dclone([1..5])}, qq(\\n)",
}

HELLO = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <pthread.h>
static int compare(const void *a, const void *b) { return *(int *)a - *(int *)b; }
static void *work(void *p) { *(long *)p = 0; for (int i = 0; i < 1000000; i++) *(volatile long *)p += i; return 0; }
int main(int argc, char **argv) {
    int v[1000]; unsigned x = 7;
    for (int i = 0; i < 1000; i++) v[i] = (int)((x = x * 1103515245u + 12345u) >> 16);
    qsort(v, 1000, sizeof v[0], compare);
    pthread_t t[4]; long sums[4];
    for (int i = 0; i < 4; i++) pthread_create(&t[i], 0, work, &sums[i]);
    for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
    printf("%d %d %d %.12f %ld %d %s\n", v[0], v[500], v[999], sin(1.0) * exp(2.0), sums[0] + sums[3], argc, argv[argc - 1]);
    char *big = malloc(64 << 20); memset(big, 1, 64 << 20); printf("%d\n", big[50 << 20]); free(big);
    return 42;
}
"""

COMPILE = """
set -e
gcc -O2 -Wall -o hello hello.c -lm -pthread
./hello one two || echo status $?
gcc -O1 -static -o static hello.c -lm -pthread && ./static || echo status $?
gcc -g -c -fPIC -DPART part.c -o part.o; gcc -shared -o libpart.so part.o; gcc main.c -L. -lpart -Wl,-rpath,$PWD -o main; ./main
ar rc libpart.a part.o; ranlib libpart.a; nm libpart.a | grep -c ' T '; objdump -d part.o | grep -c '>:'; strip main; ./main
echo 'int main(void) { return undeclared; }' | gcc -x c - 2>&1 | grep -c undeclared
gcc -E -dM -x c /dev/null | grep __x86_64__
"""


TITLES = list(OVER_THE_TREE)
BATCH = 5


def tree_script(titles: list[str]) -> str:
    """Return a script that runs the lines of `titles` over one tree and removes what each leaves beside it."""
    keep = "! -name tree ! -name tree.tar ! -name run.sh"
    lines = ["tar xf tree.tar"]
    for title in titles:
        lines += [f"echo '{MARK}{title}'", f"(\n{OVER_THE_TREE[title]}\n); echo status $?"]
        lines += [f"find . -mindepth 1 -maxdepth 1 {keep} -exec rm -rf {{}} +"]
    return "\n".join(lines) + "\n"


@pytest.mark.timeout(200)
@pytest.mark.parametrize("title", TITLES)
def test_tools_over_a_tree_of_2000_files_behave_as_on_linux(title: str, shared: SharedRuns, tree: bytes) -> None:
    number = TITLES.index(title) // BATCH
    files = {"tree.tar": tree, "run.sh": tree_script(TITLES[number * BATCH : (number + 1) * BATCH])}
    shared.compare_section(("tree", number), title, ["bash", "run.sh"], files, 190)


@pytest.mark.timeout(150)
def test_a_tree_of_2000_files_is_made_as_on_linux(run_both: Runner) -> None:
    run_both(
        ["bash", "-c", MAKE_TREE + "find tree -type f | sort | xargs md5sum | md5sum; find tree | wc -l"], timeout=140
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    where = tmp_path_factory.mktemp("tree")
    subprocess.run(
        ["bash", "-c", MAKE_TREE + "tar cf tree.tar --owner=0 --group=0 tree"],
        cwd=where,
        check=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )
    return (where / "tree.tar").read_bytes()


@pytest.mark.parametrize("title", PERL)
def test_perl_behaves_as_on_linux(title: str, run_both: Runner) -> None:
    run_both(["perl", "-we", PERL[title]])


@pytest.mark.timeout(200)
def test_a_c_program_is_compiled_and_run_on_the_island(run_both: Runner) -> None:
    files = {
        "hello.c": HELLO,
        "part.c": 'const char *part(void) { return "from a library"; }\n',
        "main.c": "#include <stdio.h>\nconst char *part(void);\nint main(void) { return puts(part()) < 0; }\n",
    }
    run_both(["bash", "-c", COMPILE], files=files, timeout=190)


@pytest.mark.emulated
@pytest.mark.parametrize(
    "flags", [("-static",), ("-static-pie", "-fPIE"), ("-no-pie",), ("-pie", "-fPIE")], ids=lambda f: f[0]
)
def test_a_program_of_every_linkage_runs(
    flags: tuple[str, ...], compile_c: Callable[..., Path], run_both: Runner
) -> None:
    island = run_both([compile_c("linkage", *flags), "one", "two words", ""], compare_stderr=True)
    assert island.status == 42
