"""What a machine is made of on its host: a tenant's images by their paths, and nothing of the host that is not theirs.

The tenant `default` is the host's own: it may name any path. Others name files of their images, which the host's
operator puts into a directory for each (`Places.images`).
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

from enisle.control.specs import DEFAULT_TENANT, VmSpec, check_file
from enisle.errors import InvalidRequest, NotFound


def vm_configuration(configuration: dict[str, Any], tenant: str, images: Path) -> dict[str, Any]:
    """Return what a machine is made of on this host, the tenant's images by their paths.

    Raises InvalidRequest for what the tenant may not say, NotFound for an image that is not here.
    """
    words = {one.name for one in fields(VmSpec)} - {"name", "host"}
    if tenant != DEFAULT_TENANT and (unknown := configuration.keys() - words):
        raise InvalidRequest(f"a machine has no {min(unknown)!r:.60}", f"it has {', '.join(sorted(words))}", "")
    if not configuration.get("kernel"):
        raise InvalidRequest("no kernel to boot", "a machine needs one", "name its file")
    placed = {
        name: _placed(configuration[name], tenant, images) for name in ("kernel", "initrd") if configuration.get(name)
    }
    disks: Any = configuration.get("disks")
    if disks:
        if not isinstance(disks, list):
            raise InvalidRequest("a machine's disks are a list", f"not {disks!r:.100}", "")
        placed["disks"] = [_placed(one, tenant, images) for one in disks]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return {**configuration, **placed}


def _placed(name: object, tenant: str, images: Path) -> Any:
    """Return the path of a file. Raises InvalidRequest, NotFound."""
    if not isinstance(name, str):
        raise InvalidRequest("a machine's files have names", f"not {name!r:.100}", "")
    check_file(name, tenant)
    if name.startswith("/"):
        return name
    plain = name.removesuffix(":rw").removesuffix(":ro")
    if not (images / plain).is_file():
        why = f"the tenant {tenant} has none of that name on this host"
        hint = f"its operator puts images into {Path(*images.parts[-4:])} of the state directory"
        raise NotFound(f"there is no image {plain}", why, hint)
    return str(images / name)
