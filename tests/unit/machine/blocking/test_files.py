"""Values, dumps and fingerprints as files: whole and right, or refused."""

import json
import random
from pathlib import Path

import pytest

from enisle.errors import InvalidRequest, NotFound
from enisle.machine.blocking import dumps, files, fingerprint, levels
from enisle.machine.blocking.value import BlockingValue
from unit.machine.blocking import making

KEY, OTHER = b"k" * 32, b"o" * 32


def test_a_value_comes_back_as_it_was() -> None:
    chance = random.Random(10)
    for _ in range(50):
        value = making.value(chance)
        assert files.load(files.dump(value), "f") == value
        assert files.load(files.dump(value, KEY), "f", KEY).digest == value.digest


def test_a_truncated_value_is_refused_at_every_length() -> None:
    text = files.dump(levels.level("x86-64-v2"), KEY)
    for length in range(0, len(text) - 2, 97):
        with pytest.raises(InvalidRequest, match="is no blocking value"):
            files.load(text[:length], "f")


def changes(text: str) -> list[str]:
    """Return files with one thing changed each."""
    found: list[str] = []
    for key, change in (
        ("strict", False), ("features", {}), ("demands", []), ("version", 2), ("version", "1"),
        ("architecture", "arm64"),
        ("tables", {"rdmsr": [7, []]}), ("tables", {"nop": [0, []]}), ("calls", [9, []]), ("require", "always"),
        ("features", {"avx99": "block"}), ("features", {"avx": "maybe"}), ("masks", [[1]]),
        ("outcomes", {"rdmsr": [1, 2, 3]}),
        ("seconds", [[1, 2]]), ("demands", ["nothing"]), ("answers", "x"),
    ):  # fmt: skip
        record = json.loads(text)
        record["value"][key] = change
        found.append(json.dumps(record))
    for key in json.loads(text)["value"]:
        record = json.loads(text)
        del record["value"][key]
        found.append(json.dumps(record))
    return [*found, text.replace("blocking value", "value"), "[]", "3", '{"enisle": "blocking value", "value": 3}']


@pytest.mark.parametrize("changed", changes(files.dump(levels.level("x86-64-v2"))), ids=lambda text: "")
def test_a_changed_value_is_refused(changed: str) -> None:
    with pytest.raises(InvalidRequest):
        files.load(changed, "f")


def test_a_forged_value_needs_the_key() -> None:
    """Whoever changes a value can make its digest right, but not its signature."""
    forged = json.loads(files.dump(BlockingValue("policy", strict=True), KEY))
    stricter = BlockingValue("policy")
    forged["value"], forged["digest"] = stricter.to_record(), stricter.digest
    text = json.dumps(forged)
    assert files.load(text, "f") == stricter, "unsigned use sees a whole file"
    for key in (KEY, OTHER):
        with pytest.raises(InvalidRequest, match="not signed with this key"):
            files.load(text, "f", key)
    with pytest.raises(InvalidRequest, match="not signed with this key"):
        files.load(files.dump(stricter), "f", KEY)


def test_words_name_levels_templates_and_files(tmp_path: Path) -> None:
    value, template, junk = tmp_path / "v.json", tmp_path / "slow.toml", tmp_path / "junk"
    value.write_text(files.dump(levels.level("x86-64-v2")))
    template.write_text('[features]\nblock = ["avx"]')
    junk.write_bytes(b"\xff\xfe\x00")
    assert files.find_value(str(value)) == files.find_value("x86-64-v2")
    assert files.find_value(str(template)).name == "slow"
    both = files.resolve([str(value), str(template)], "detect")
    assert (both.require, "sse4_2" in both.features, "avx" in both.features) == ("detect", True, False)
    for word, error in (
        (str(junk), InvalidRequest),
        (str(tmp_path / "not"), NotFound),
        (str(tmp_path), InvalidRequest),
    ):
        with pytest.raises(error):
            files.find_value(word)
    with pytest.raises(InvalidRequest, match="not signed"):
        files.find_value(str(template), KEY)
    with pytest.raises(InvalidRequest, match="requirement"):
        files.resolve([], "perhaps")


def test_keys_are_long_enough(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"short\n")
    with pytest.raises(InvalidRequest, match="is no key"):
        files.read_key(str(path))
    path.write_bytes(KEY + b"\n")
    assert files.read_key(str(path)) == KEY


def test_a_dump_comes_back_as_it_was_and_no_other_way() -> None:
    table = making.processor(making.features(random.Random(11)))
    text = json.dumps(dumps.dump(table, "host"))
    assert dumps.load(text, "d") == table
    for bad in (
        text[:-40],
        text.replace('"xcr0": ', '"xcr0": 1'),
        "[]",
        '{"enisle": "processor"}',
        text.replace("processor", "x"),
    ):
        with pytest.raises(InvalidRequest):
            dumps.load(bad, "d")


def test_a_core_is_not_told_from_the_next() -> None:
    table = making.processor(making.features(random.Random(12)))
    a, b, c, d = table.entries[1, 0]
    other = type(table)(table.entries | {(1, 0): (a, b | 7 << 24, c, d)}, table.xcr0)
    assert dumps.digest(other) == dumps.digest(table)
    assert dumps.strip({"a": table, "b": other}) == {"a": [], "b": []}
    assert dumps.strip({"a": table})["a"]


def test_a_fingerprint_comes_back_as_it_was_and_no_other_way() -> None:
    taken = fingerprint.of(
        making.processor(making.features(random.Random(13))), "kvm", ("6.1", "0x1"), (("tsd", True),)
    )
    text = fingerprint.dump(taken)
    assert fingerprint.load(text, "f") == taken
    for bad in (text[:-9], text.replace("6.1", "6.2"), "[]", "{}", text.replace('"kvm"', '"kvm", "more": 1')):
        with pytest.raises(InvalidRequest, match="is no fingerprint"):
            fingerprint.load(bad, "f")
