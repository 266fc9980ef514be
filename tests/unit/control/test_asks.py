"""What the controller asks of the supervisor, and what a part in strangers' hands may not make of it."""

import asyncio
import json
import os
import threading
from pathlib import Path

import pytest

from enisle.control import Asks, Places, require_layout
from enisle.control.asks import Acts, answer_all, make_ready
from enisle.control.guests import controller_parts, mounts, prepare
from enisle.errors import InvalidRequest, NotFound


def refuse(_: object) -> dict[str, object]:
    raise NotFound("there is no host h9", "", "`enisle host ls`")


ACTS: Acts = {"echo": lambda it: {"said": it["word"]}, "refuse": refuse}


def asked(directory: Path, act: str, **words: object) -> object:
    over = threading.Event()

    def supervise() -> None:
        while not over.wait(0.005):
            answer_all(directory, ACTS)

    thread = threading.Thread(target=supervise)
    thread.start()
    try:
        return asyncio.run(Asks(directory).ask(act, **words))
    finally:
        over.set()
        thread.join()


def test_what_is_asked_is_done_and_nothing_is_left(tmp_path: Path) -> None:
    assert asked(tmp_path, "echo", word="hi") == {"said": "hi"}
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("act", "kind"), [("refuse", NotFound), ("reboot", InvalidRequest)])
def test_an_error_comes_back_as_it_was_raised(tmp_path: Path, act: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        asked(tmp_path, act)
    assert not [*tmp_path.iterdir()]


def test_an_act_without_its_words_is_refused_and_ends_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="KeyError"):
        asked(tmp_path, "echo")


def test_links_pipes_and_large_or_strange_files_are_not_followed(tmp_path: Path) -> None:
    secret, box = tmp_path / "secret", tmp_path / "box"
    box.mkdir()
    secret.write_text(json.dumps({"act": "echo", "word": "secret"}))
    (box / "a.ask").symlink_to(secret)
    os.mkfifo(box / "b.ask")
    (box / "c.ask").write_text('{"act": "echo", "word": "' + "x" * 70_000 + '"}')
    (box / "d.ask").write_text("[" * 30_000)
    (box / "e.ask").write_bytes(b"\xff\xfe")
    (box / "f.ask").mkdir()
    assert answer_all(box, ACTS) == 0
    (box / "g.ask").write_text('{"act": "echo", "word": "x"}')
    (box / "g.answer.new").symlink_to(secret)  # where the answer is to be written
    (box / "..ask").write_text('{"act": "echo", "word": "x"}')
    answer_all(box, ACTS)
    assert "secret" in secret.read_text()
    assert not (tmp_path / ".answer").exists()
    assert not (box / "g.answer").exists()
    make_ready(box)
    assert [path.name for path in box.iterdir()] == ["f.ask"]
    assert secret.exists()


def test_an_island_sees_no_key_no_data_and_no_keeper(tmp_path: Path) -> None:
    places = Places(tmp_path)
    (places.engine / "store").mkdir(parents=True)
    for name in ("engine.json", "ca.pem", "ca.key", "server.key", "accounts.conf", "hosts.json"):
        (places.engine / name).touch()
    prepare(places)
    everything = mounts(places, ("dispatcher", "api"))
    api = mounts(places, ("api",))
    for shown in (everything, api):
        assert not {str(tmp_path), str(places.engine), str(tmp_path / "hosts")} & shown.keys()
        assert not {"ca.key", "server.key", "store", "accounts.conf", "hosts.json"} & {
            Path(path).name for path in shown
        }
    assert not api[str(places.mark)]
    assert not api[str(places.token)]
    assert str(places.engine / "engine.json") not in api
    assert str(places.asks("dispatcher")) not in api


def test_each_layout_has_its_parts(tmp_path: Path) -> None:
    found = {
        layout: [
            (part.name, part.island) for part in controller_parts(layout, Places(tmp_path), (), (), ("--port", "1"), ())
        ]
        for layout in ("host", "island", "islands")
    }
    assert found == {
        "host": [("dispatcher", False), ("api", False)],
        "island": [("controller", True)],
        "islands": [("dispatcher", True), ("api", True)],
    }
    with pytest.raises(InvalidRequest, match="moon"):
        require_layout("moon")


def test_a_history_of_before_is_taken_along(tmp_path: Path) -> None:
    for name in ("history.db", "history.db-wal"):
        (tmp_path / name).write_text(name)
    places = Places(tmp_path)
    prepare(places)
    assert places.history.read_text() == "history.db"
    assert places.history.with_name("history.db-wal").read_text() == "history.db-wal"
    assert not (tmp_path / "history.db").exists()


def test_what_an_island_left_for_a_life_on_the_host_is_not_followed(tmp_path: Path) -> None:
    places = Places(tmp_path / "state")
    prepare(places)
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    places.history.symlink_to(victim)
    (places.mark / "watermark.db").symlink_to(tmp_path / "nowhere")
    os.mkfifo(places.codes / "pipe")
    (places.controller / "history.db-wal").write_bytes(b"kept")
    prepare(places)
    assert victim.read_text() == "as it was"
    assert [path.name for path in places.controller.iterdir()] == ["history.db-wal"]
    assert not list(places.mark.iterdir())
    assert not list(places.codes.iterdir())
