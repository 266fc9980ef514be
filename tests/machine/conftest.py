"""Every contract test runs on every backend and on both kinds of memory."""

from collections.abc import Iterator

import pytest

from enisle.machine import Machine
from machine.guest import Guest

BACKENDS = [pytest.param("kvm", marks=pytest.mark.kvm), "emulated"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["anonymous", "shared"])
def memory_kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def machine(backend: str) -> Iterator[Machine]:
    with Machine(backend, 64 << 20) as machine:
        yield machine


@pytest.fixture
def guest(machine: Machine) -> Guest:
    return Guest(machine)


@pytest.fixture
def kind_guest(backend: str, memory_kind: str) -> Iterator[Guest]:
    with Machine(backend, 64 << 20, memory_kind=memory_kind) as machine:
        yield Guest(machine)
