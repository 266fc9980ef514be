"""All that tasks can do on a host, by name and version."""

from typing import Any, cast

from enisle.control.hosting import Hosting
from enisle.control.island_routines import IslandRoutines
from enisle.control.vm_routines import VmRoutines
from enisle.tasks import Routines, example_routines


def host_routines(hosting: Hosting | None = None) -> Routines:
    """Return the routines of a host; without one, only to be listed."""
    routines = example_routines()
    here = hosting or cast(Any, None)
    IslandRoutines(here).add_to(routines)
    VmRoutines(here).add_to(routines)
    return routines
