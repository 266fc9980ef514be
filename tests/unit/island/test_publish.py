"""The copy of /etc holds what every user may read, and nothing else."""

import os
from pathlib import Path

from enisle.island.publish import copy_public


def test_only_public_files_are_copied(tmp_path: Path) -> None:
    source, destination = tmp_path / "etc", tmp_path / "copy"
    for name, mode in (("passwd", 0o644), ("secret", 0o600), ("group-only", 0o640), ("hidden", 0o644)):
        (source).mkdir(exist_ok=True)
        (source / name).write_text(name)
        (source / name).chmod(mode)
    for name, mode in (("open", 0o755), ("closed", 0o700)):
        (source / name).mkdir()
        (source / name / "file").write_text(name)
        (source / name / "file").chmod(0o644)
        (source / name).chmod(mode)
    (source / "link").symlink_to("/etc/shadow")
    os.mkfifo(source / "fifo", 0o666)
    copy_public(str(source), str(destination), hidden=("hidden",))
    assert sorted(path.name for path in destination.iterdir()) == ["link", "open", "passwd"]
    assert (destination / "open" / "file").read_text() == "open"
    assert os.readlink(destination / "link") == "/etc/shadow"
