"""Blocking values as files: written with a digest and, given a key, a signature; read with every word checked.

    {"enisle": "blocking value", "name": …, "value": {…}, "digest": SHA-256, "signature": HMAC-SHA256 of the digest}

A word on the command line is a built-in name, or a path of such a file or of a template (TOML).
"""

import json
import os
from collections.abc import Sequence
from typing import Any, cast

from enisle.abi.x86_features import NAMES
from enisle.errors import InvalidRequest, NotFound
from enisle.machine.blocking import levels
from enisle.machine.blocking.admission import check_bootable
from enisle.machine.blocking.instructions import REQUIRE, Action, Instruction, Refusal
from enisle.machine.blocking.value import TABLES, BlockingValue
from enisle.machine.blocking.wire import ARCHITECTURE, VERSION

KIND = "blocking value"
LARGEST = 1 << 20
KEY_BYTES = 16
"""The least a key must have."""


def dump(value: BlockingValue, key: bytes | None = None) -> str:
    """Return the value as the text of a file, signed when there is a key."""
    record = {"enisle": KIND, "name": value.name, "value": value.to_record(), "digest": value.digest}
    if key is not None:
        record["signature"] = sign(value.digest, key)
    return json.dumps(record, indent=1) + "\n"


def sign(digest: str, key: bytes) -> str:
    import hmac

    return hmac.digest(key, digest.encode(), "sha256").hex()


def load(text: str, source: str, key: bytes | None = None) -> BlockingValue:
    """Return the value of a file; with a key its signature must be right. Raises InvalidRequest."""
    try:
        record = json.loads(text)
    except ValueError as error:
        raise _broken(source, f"it is no JSON, or cut off: {error}") from None
    if not isinstance(record, dict) or cast("dict[str, Any]", record).get("enisle") != KIND:
        raise _broken(source, 'it does not say "enisle": "blocking value"')
    record = cast("dict[str, Any]", record)
    words = record.get("value")
    if not isinstance(words, dict):
        raise _broken(source, "it has no value")
    words = cast("dict[str, Any]", words)
    _check_kind(words, source)
    try:
        value = BlockingValue.from_record(words, str(record.get("name", "")))
        _check_words(value)
    except (KeyError, ValueError, TypeError, AssertionError, AttributeError) as error:
        raise _broken(source, f"a part of it is missing or makes no sense: {type(error).__name__}: {error}") from None
    if value.to_record() != words or value.digest != record.get("digest"):
        raise _broken(source, "its digest is not that of its content: it was changed or damaged")
    if key is not None and not _is_signed(record, value, key):
        raise _broken(source, "it is not signed with this key")
    return value


def _is_signed(record: dict[str, Any], value: BlockingValue, key: bytes) -> bool:
    import hmac

    return hmac.compare_digest(str(record.get("signature", "")), sign(value.digest, key))


def _check_kind(words: dict[str, Any], source: str) -> None:
    if words.get("version") != VERSION:
        raise _broken(source, f"its version is {words.get('version')!r}, this Enisle reads {VERSION}")
    if words.get("architecture") != ARCHITECTURE:
        raise _broken(source, f"it is for {words.get('architecture')!r}, this is {ARCHITECTURE}")


def _check_words(value: BlockingValue) -> None:
    """Raise ValueError for entries that mean nothing."""
    tables = {key: (table, max(Action)) for key, table in value.tables.items()}
    tables |= {Instruction.SYSCALL: (value.calls, max(Refusal))}
    for table, largest in (*tables.values(), *((second.table, max(Refusal)) for second in value.seconds.values())):
        entries = [table.default, *(entry for _, entry in table.codes)]
        if not all(0 <= entry <= largest for entry in entries):
            raise ValueError(f"{entries=}")
    if value.require not in REQUIRE or not set(value.tables) <= set(TABLES) or not value.demands <= NAMES:
        raise ValueError(f"{value.require=}")


def _broken(source: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{source} is no blocking value", why, "enisle cpu baseline --output FILE writes one")


def read_key(path: str) -> bytes:
    """Return the key in a file. Raises NotFound, InvalidRequest."""
    key = _read(path).strip()
    if len(key) < KEY_BYTES:
        raise InvalidRequest(f"{path} is no key", f"it has {len(key)} bytes, a key has at least {KEY_BYTES}")
    return key


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        known = ", ".join(levels.names())
        raise NotFound(f"there is no {path}", f"no file, and none of {known}", "enisle cpu levels") from None
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}", os.strerror(error.errno or 0)) from None
    if len(content) > LARGEST:
        raise InvalidRequest(f"{path} is too large", f"a value or template has at most {LARGEST >> 20} MiB")
    return content


def read_text(path: str) -> str:
    """Return a file of text. Raises NotFound, InvalidRequest."""
    try:
        return _read(path).decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"{path} is no text", hint="docs/cpu-templates.md") from None


def find_value(word: str, key: bytes | None = None) -> BlockingValue:
    """Return the value a word names: a built-in one, or a file. Raises NotFound, InvalidRequest."""
    if word in levels.names():
        return levels.level(word)
    text = read_text(word)
    if text.lstrip()[:1] == "{":
        return load(text, word, key)
    if key is not None:
        raise InvalidRequest(
            f"{word} is not signed", "a template has no signature", "enisle cpu show TEMPLATE --key KEY --output FILE"
        )
    from enisle.machine.blocking import templates  # brings the parser of TOML, which built-in values do not need

    name = os.path.basename(word).removesuffix(".toml")
    return templates.parse(text, name)


def resolve(words: Sequence[str], require: str = "", key: bytes | None = None) -> BlockingValue:
    """Return what all the named values permit together, required as asked. Raises NotFound, InvalidRequest."""
    value = BlockingValue.compose(*(find_value(word, key) for word in words))
    if require and require not in REQUIRE:
        raise InvalidRequest(f"there is no requirement {require!r}", hint=f"one of {', '.join(REQUIRE)}")
    if require:
        value = BlockingValue.compose(value, BlockingValue(require=require))
    check_bootable(value)
    return value
