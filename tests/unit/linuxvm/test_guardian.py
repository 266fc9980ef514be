"""What a guardian does besides waiting: it keeps a guest that writes without end from filling the host's disk."""

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from enisle.linuxvm.guardian import trim


@given(st.binary(max_size=300), st.integers(2, 100).map(lambda half: 2 * half))
def test_of_a_long_file_the_newer_half_stays_and_writing_goes_on(content: bytes, most: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "log"
        with open(path, "ab", buffering=0) as writer:
            writer.write(content)
            trim(path, most)
            kept = path.read_bytes()
            assert kept == (content if len(content) <= most else content[-most // 2 :])
            writer.write(b"more")
            assert path.read_bytes() == kept + b"more"


def test_a_file_that_is_gone_is_no_trouble(tmp_path: Path) -> None:
    trim(tmp_path / "none", 10)
    assert os.listdir(tmp_path) == []
