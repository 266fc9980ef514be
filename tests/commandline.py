"""Run the command line as a user does."""

import subprocess
import sysconfig
from pathlib import Path

ENISLE = str(Path(sysconfig.get_path("scripts")) / "enisle")


def enisle(*words: str, **options: object) -> "subprocess.CompletedProcess[str]":
    """Run `enisle` to its end and return what came of it."""
    return subprocess.run([ENISLE, *words], capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload]
