"""What a machine may be made of: a tenant's own images, and nothing else of the host."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.control.images import vm_configuration
from enisle.errors import EnisleError, InvalidRequest, NotFound


def images(directory: Path, *names: str) -> Path:
    found = directory / "images" / "acme"
    found.mkdir(parents=True)
    for name in names:
        (found / name).write_bytes(b"x")
    return found


def test_a_tenant_boots_what_its_operator_put_there(tmp_path: Path) -> None:
    here = images(tmp_path, "vmlinuz", "root.img")
    told = vm_configuration({"kernel": "vmlinuz", "disks": ["root.img:rw"], "memory": "64M"}, "acme", here)
    assert told == {"kernel": f"{here}/vmlinuz", "disks": [f"{here}/root.img:rw"], "memory": "64M"}
    with pytest.raises(NotFound, match="no image other"):
        vm_configuration({"kernel": "other"}, "acme", here)
    with pytest.raises(InvalidRequest, match="a machine has no 'gdb'"):
        vm_configuration({"kernel": "vmlinuz", "gdb": True}, "acme", here)
    assert vm_configuration({"kernel": "/boot/x", "gdb": True}, "default", here)["kernel"] == "/boot/x"


PATHS = st.one_of(
    st.sampled_from(
        ["/etc/passwd", "../globex/vmlinuz", "..", ".", "/dev/sda:rw", "a/b", "", "vmlinuz\n", "~root", ":ro"]
    ),
    st.text(max_size=12),
    st.none() | st.integers(),
)


@given(
    st.fixed_dictionaries({"kernel": PATHS}, optional={"initrd": PATHS, "disks": st.lists(PATHS, max_size=2) | PATHS})
)
def test_nothing_outside_of_the_images_can_be_named(configuration: dict[str, Any]) -> None:
    try:
        told = vm_configuration(configuration, "acme", Path("/nowhere/images/acme"))
    except EnisleError:
        return  # nothing is there, so whatever is named must be refused
    raise AssertionError(told)
