"""Programs are found as execvp(3) finds them; those that cannot run are explained."""

import struct
from errno import EACCES, ENOENT, ENOEXEC
from pathlib import Path

import pytest

from enisle.errors import EnisleError, LinuxError
from enisle.island.program import explain, start_program


def failing(errors: dict[str, int]):
    """Return a start function that fails as told for some paths and returns the path for others."""

    def start(path: bytes) -> str:
        name = path.decode()
        if name in errors:
            raise LinuxError(errors[name])
        return name

    return start


def test_a_name_is_looked_for_along_the_path() -> None:
    environment = {"PATH": "/a:/b::/c"}
    assert start_program(["x"], environment, failing({"/a/x": ENOENT})) == "/b/x"
    assert start_program(["x"], environment, failing({"/a/x": EACCES, "/b/x": ENOENT})) == "./x"


def test_a_name_with_a_slash_is_taken_as_it_is() -> None:
    assert start_program(["./x"], {"PATH": "/a"}, failing({})) == "./x"


def code_of(argv: list[str], errors: dict[str, int], path: str = "/a") -> tuple[int, EnisleError]:
    with pytest.raises(EnisleError) as caught:
        start_program(argv, {"PATH": path}, failing(errors))
    return caught.value.exit_code, caught.value


def test_a_missing_program_is_127_and_one_that_may_not_run_126() -> None:
    assert code_of(["x"], {"/a/x": ENOENT})[0] == 127
    assert code_of([""], {})[0] == 127
    assert code_of(["/x"], {"/x": ENOENT})[0] == 127
    assert code_of(["x"], {"/a/x": EACCES, "/b/x": ENOENT}, "/a:/b")[0] == 126


def test_a_program_of_another_architecture_is_named(tmp_path: Path) -> None:
    program = tmp_path / "arm"
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 183) + bytes(100))
    assert "64-bit ARM" in explain(str(program), ENOEXEC).why


@pytest.mark.parametrize(
    ("content", "errno", "words"),
    [
        (b"", ENOEXEC, "empty"),
        (b"hello", ENOEXEC, "neither"),
        (b"\x7fELF", ENOEXEC, "cut short"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 62), ENOEXEC, "damaged"),
        (b"#!/no/such/thing -x\n", ENOENT, "/no/such/thing"),
        (b"\x7fELF\x02\x01\x01" + bytes(60), ENOENT, "loader"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, content: bytes, errno: int, words: str) -> None:
    program = tmp_path / "program"
    program.write_bytes(content)
    error = explain(str(program), errno)
    assert error.exit_code == 126
    assert words in error.why
    assert error.hint
