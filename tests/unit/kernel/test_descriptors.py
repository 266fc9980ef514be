"""Descriptor tables against a dictionary, and descriptions against their reference counts."""

import os
from errno import EBADF, EMFILE

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from enisle.abi.types import Fd
from enisle.errors import LinuxError
from enisle.kernel.files import FdTable, OpenFile

LIMIT = 12
numbers = st.integers(0, LIMIT - 1)


class CountedFile(OpenFile):
    """A description without a host file that knows whether it was closed, and how often."""

    def __init__(self) -> None:
        super().__init__(-1, os.O_RDWR)
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Tables(RuleBasedStateMachine):
    """Up to several tables made by fork, each with its model: number → (description, close-on-exec)."""

    tables = Bundle("tables")

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[FdTable, dict[int, tuple[CountedFile, bool]]] = {}
        self.files: list[CountedFile] = []

    @rule(target=tables)
    def start(self) -> FdTable:
        table = FdTable()
        self.models[table] = {}
        return table

    @rule(table=tables, cloexec=st.booleans(), lowest=numbers)
    def open(self, table: FdTable, cloexec: bool, lowest: int) -> None:
        file, model = CountedFile(), self.models[table]
        free = next((number for number in range(lowest, LIMIT) if number not in model), None)
        if free is None:
            with pytest.raises(LinuxError) as caught:
                table.add(file, cloexec, LIMIT, lowest)
            assert caught.value.errno == EMFILE
            assert file.closed == 1
            return
        assert table.add(file, cloexec, LIMIT, lowest) == free
        self.files.append(file)
        model[free] = (file, cloexec)

    @rule(table=tables, old=numbers, new=numbers, cloexec=st.booleans())
    def duplicate(self, table: FdTable, old: int, new: int, cloexec: bool) -> None:
        model = self.models[table]
        if old in model and old != new:
            table.set(new, table.get(Fd(old)), cloexec)
            model[new] = (model[old][0], cloexec)

    @rule(table=tables, number=numbers)
    def close(self, table: FdTable, number: int) -> None:
        if self.models[table].pop(number, None):
            table.close(Fd(number))
        else:
            with pytest.raises(LinuxError) as caught:
                table.close(Fd(number))
            assert caught.value.errno == EBADF

    @rule(target=tables, table=tables)
    def fork(self, table: FdTable) -> FdTable:
        child = table.clone()
        self.models[child] = dict(self.models[table])
        return child

    @rule(table=tables)
    def execute(self, table: FdTable) -> None:
        table.close_on_exec()
        self.models[table] = {number: kept for number, kept in self.models[table].items() if not kept[1]}

    @rule(table=consumes(tables))
    def exit(self, table: FdTable) -> None:
        table.release()
        del self.models[table]

    @invariant()
    def agree(self) -> None:
        for table, model in self.models.items():
            assert [(number, file) for number, file in table.items()] == sorted(
                ((number, file) for number, (file, _) in model.items()), key=lambda item: item[0]
            )
            assert all(table.is_cloexec(number) == cloexec for number, (_, cloexec) in model.items())
        for file in self.files:
            users = sum(one is file for model in self.models.values() for one, _ in model.values())
            assert file.closed == (not users)


Tables.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTables = Tables.TestCase


def test_a_description_held_by_a_call_outlives_its_descriptor() -> None:
    table, file = FdTable(), CountedFile()
    table.add(file)
    held = table.hold(Fd(0))
    table.close(Fd(0))
    assert not file.closed
    held.drop()
    assert file.closed == 1
