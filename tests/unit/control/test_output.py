"""What commands wrote, in files: every piece once, in order, bounded; a full disk costs pieces and nothing else."""

import base64
import resource
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from enisle.control.output import FILE_BYTES, PIECE, Output, next_number, read

WRITTEN = st.lists(st.tuples(st.sampled_from(("stdout", "stderr")), st.binary(min_size=1, max_size=300)), max_size=40)


def everything(directory: Path, after: int = 0) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    while (told := read(str(directory), after))["chunks"]:
        found += [(one["stream"], base64.b64decode(one["data"])) for one in told["chunks"]]
        after = told["next"]
    return found


@given(WRITTEN, WRITTEN)
def test_what_is_written_is_read_once_and_in_order_also_by_the_next_writer(
    tmp_path_factory: object, first: list[tuple[str, bytes]], second: list[tuple[str, bytes]]
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        for part in (first, second):
            output = Output(place)
            for stream, content in part:
                output.write(stream, content)
            output.close()
        assert everything(Path(place)) == [*first, *second]
        number = len(first) + len(second)
        assert next_number(place) == number
        assert read(place, 0, tail=3)["next"] == number
        assert len(read(place, 0, tail=3)["chunks"]) == min(3, number)


def test_the_oldest_goes_when_there_is_too_much(tmp_path: Path) -> None:
    output = Output(str(tmp_path), kept_bytes=3 * FILE_BYTES)
    for number in range(100):
        output.write("stdout", b"%06d" % number + b"x" * (64 << 10))
    output.close()
    assert output.truncated
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * FILE_BYTES
    told = read(str(tmp_path), 0)
    assert told["truncated"]
    kept = everything(tmp_path)
    assert kept[-1][1].startswith(b"000099")
    assert [int(content[:6]) for _, content in kept] == list(range(told["chunks"][0]["n"], 100))


def test_a_piece_that_is_being_written_is_not_there_yet(tmp_path: Path) -> None:
    output = Output(str(tmp_path))
    output.write("stdout", b"whole")
    output.close()
    with open(tmp_path / "000000000000", "ab") as file:
        file.write(PIECE.pack(0, 1.0, 100) + b"half")
    assert everything(tmp_path) == [("stdout", b"whole")]
    assert next_number(str(tmp_path)) == 1


FULL = """
import signal, resource, sys
from enisle.control.output import Output
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
output = Output(sys.argv[1])
for number in range(40):
    output.write("stdout", b"%04d" % number * 2000)
print(output.number, output.truncated)
"""


def test_a_disk_that_takes_no_more_costs_pieces_only(tmp_path: Path) -> None:
    assert resource.RLIMIT_FSIZE
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    number, truncated = done.stdout.split()
    assert truncated == "True"
    kept = everything(tmp_path)
    assert [content[:4] for _, content in kept] == [b"%04d" % one for one in range(int(number))]
    assert 5 < int(number) < 15
