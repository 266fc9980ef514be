"""What an island keeps of its commands: the last ones, and no more than there is room for."""

from pathlib import Path
from typing import Any

import pytest

from enisle.control import commands
from enisle.control.commands import Commands, result_of
from enisle.errors import GuestError, InvalidRequest, NotFound


class Running:
    """A command of an island that writes what its words say, and ends."""

    def __init__(self, argv: list[str]) -> None:
        self._argv = argv

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Any:
        return iter([("stdout", word.encode()) for word in self._argv[1:]])

    def wait(self) -> int:
        return 0

    def kill(self, signo: int) -> None:
        pass


class Small:
    """As much of an island as its commands need."""

    def __init__(self) -> None:
        self.started = 0

    def start(self, argv: list[str], **more: Any) -> Running:
        if argv[0] == "nowhere":
            error = NotFound("cannot find the program 'nowhere'", "not in PATH=/bin", "give its whole path")
            error.exit_code = 127
            raise error
        if argv[0] == "missing":
            raise NotFound("there is no program missing")
        self.started += 1
        return Running(argv)


def of(directory: Path, island: Small) -> Commands:
    return Commands(island, str(directory))  # type: ignore[arg-type]


def test_a_task_that_asks_again_joins_also_after_another_keeper(tmp_path: Path) -> None:
    island = Small()
    first = of(tmp_path, island)
    for _ in range(3):
        first.start("t1", 5, {"argv": ["echo", "hi"]}, b"")
    told = result_of(first.wait_for_end("t1", 5))
    assert (told["exit_code"], told["stdout"], told["truncated"]) == (0, "hi", False)
    second = of(tmp_path, island)
    assert result_of(second.start("t1", 6, {"argv": ["echo", "hi"]}, b""))["stdout"] == "hi"
    assert island.started == 1
    with pytest.raises(NotFound, match="missing"):
        first.start("t2", 6, {"argv": ["missing"]}, b"")
    with pytest.raises(NotFound, match="missing"):
        second.start("t2", 6, {"argv": ["missing"]}, b"")
    (tmp_path / "t3").mkdir()
    (tmp_path / "t3" / "command.json").write_text('{"task": "t3", "argv": ["a"], "ended": null}')
    with pytest.raises(GuestError, match="ended with its island"):
        second.start("t3", 6, {"argv": ["echo"]}, b"")
    with pytest.raises(InvalidRequest):
        second.start("../t4", 6, {"argv": ["echo"]}, b"")


def test_what_cannot_be_run_ends_with_a_shells_code_and_says_why_also_to_who_asks_again(tmp_path: Path) -> None:
    for number, kept in enumerate((of(tmp_path, Small()), of(tmp_path, Small()))):
        told = result_of(kept.start("t1", 5 + number, {"argv": ["nowhere"]}, b""))
        assert (told["exit_code"], told["reason"]["why"]) == (127, "not in PATH=/bin")


def test_the_oldest_commands_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "KEPT", 3)
    monkeypatch.setattr(commands, "KEPT_BYTES", 1000)
    known = of(tmp_path, Small())
    for number in range(6):
        known.start(f"t{number}", 1, {"argv": ["echo", "x"]}, b"")
        known.wait_for_end(f"t{number}", 5)
        known.join(5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t3", "t4", "t5"]
    known.start("much", 1, {"argv": ["echo", "x" * 2000]}, b"")
    known.join(5)
    assert [path.name for path in tmp_path.iterdir()] == ["much"]
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    of(tmp_path, Small())
    assert len(list(tmp_path.iterdir())) == 3
