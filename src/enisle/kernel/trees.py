"""The synthetic trees of an island, by where they are: what only our kernel knows. A tree is made at its first use."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from enisle.kernel.paths import SyntheticNode

if TYPE_CHECKING:
    from enisle.kernel.kernel import Kernel


class Trees(Mapping[bytes, SyntheticNode]):
    """Roots by path."""

    def __init__(self, kernel: "Kernel") -> None:
        self._makers: dict[bytes, Callable[[], SyntheticNode]] = {
            b"/proc": lambda: _make_proc(kernel),
            b"/dev/tty": _make_tty,
        }
        self._made: dict[bytes, SyntheticNode] = {}

    def __getitem__(self, place: bytes) -> SyntheticNode:
        return self._made.get(place) or self._made.setdefault(place, self._makers[place]())

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def _make_proc(kernel: "Kernel") -> SyntheticNode:
    from enisle.kernel.proc.root import Root

    return Root(kernel)


def _make_tty() -> SyntheticNode:
    from enisle.kernel.terminal_file import ControllingTerminal

    return ControllingTerminal()
