"""A machine's blocking value: taken up with the machine, frozen by the first run, and no weight on machines without."""

import subprocess
import sys

import pytest

from enisle.errors import HostError, StateError
from enisle.machine import Machine, find_value
from enisle.machine.blocking import backing
from enisle.machine.blocking.dumps import digest
from enisle.machine.blocking.successor import exchange

BACKENDS = [pytest.param("kvm", marks=pytest.mark.kvm), "emulated"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_value_changes_until_the_first_run_and_not_after(backend: str) -> None:
    with Machine(backend, blocking=find_value("x86-64-v1")) as machine:
        assert machine.queries
        assert "ssse3" not in machine.queries.visible
        exchange(machine, find_value("x86-64-v2"))
        assert machine.queries
        assert "ssse3" in machine.queries.visible
        backing.measure(machine)  # runs a guest
        with pytest.raises(StateError, match="frozen"):
            exchange(machine, find_value("x86-64-v2"))
        assert machine.blocking == find_value("x86-64-v2")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_processor_is_measured_the_same_apart_and_in_the_machine(backend: str) -> None:
    with Machine(backend, blocking=find_value("host")) as machine:
        assert machine.queries
        assert digest(machine.queries.host) == digest(backing.measure_backend(backend))


def test_a_machine_that_cannot_be_it_leaves_nothing_behind() -> None:
    with pytest.raises(HostError, match="cannot be x86-64-v4"):
        Machine("emulated", blocking=find_value("x86-64-v4"))


def test_without_a_value_nothing_of_it_is_imported() -> None:
    probe = (
        "import sys, enisle.island.process, enisle.cli.run, enisle.kernel.kernel\n"
        "from enisle.machine import Machine\n"
        "Machine('auto').close()\n"
        "print([n for n in sys.modules if 'blocking' in n or 'enforcement' in n or n == 'enisle.abi.cpuid'])"
    )
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert found == "[]\n"
