"""Copy what every user of the host may read, and only that: the slow way to show /etc, for stacked file systems.

An overlay over an overlay over an overlay is one too many for Linux (FILESYSTEM_MAX_STACK_DEPTH is 2), so on hosts
whose own root is an overlay /etc is copied. Never follows a symbolic link out of the tree; copies links as links.
"""

import os

LARGEST = 4 << 20
"""Bytes; /etc holds configuration, not heaps."""


def copy_public(source: str, destination: str, hidden: tuple[str, ...] = ()) -> None:
    """Copy files any user may read and directories any user may enter; skip names in `hidden` at the top."""
    os.makedirs(destination, 0o755, exist_ok=True)
    try:
        entries = list(os.scandir(source))
    except OSError:
        return
    for entry in entries:
        if entry.name in hidden:
            continue
        place = f"{destination}/{entry.name}"
        try:
            _copy_entry(entry, place)
        except OSError:
            continue  # it vanished, or cannot be read even by us: then the island does without it


def _copy_entry(entry: "os.DirEntry[str]", place: str) -> None:
    if entry.is_symlink():
        os.symlink(os.readlink(entry.path), place)
        return
    status = entry.stat(follow_symlinks=False)
    if entry.is_dir(follow_symlinks=False):
        if status.st_mode & 0o005 == 0o005:
            copy_public(entry.path, place)
    elif entry.is_file(follow_symlinks=False) and status.st_mode & 0o004 and status.st_size <= LARGEST:
        _copy_file(entry.path, place, status.st_mode & 0o777)


def _copy_file(source: str, place: str, mode: int) -> None:
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        # The name may have been given to another file since it was looked at.
        status = os.fstat(reader)
        if not status.st_mode & 0o004 or status.st_size > LARGEST:
            return
        writer = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            os.write(writer, os.read(reader, LARGEST))
        finally:
            os.close(writer)
    finally:
        os.close(reader)
