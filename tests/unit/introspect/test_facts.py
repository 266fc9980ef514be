"""Consensus: what two independent witnesses agree on is confirmed, what they differ on is a conflict."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from enisle.introspect import Facts, Witness, cache_directory
from enisle.introspect.cache import load as load_kept
from enisle.introspect.facts import CONFIRMED, CONFLICT, GLOBAL, OFFSET, SINGLE, UNKNOWN, Fact, agree
from enisle.introspect.recipes import load, syscall_names, syscall_numbers
from synthetic_kernel import READ_ONLY, START, Builder

WITNESSES = st.lists(
    st.builds(lambda value, root: Witness(value, root, "P1", START, ""), st.integers(0, 2), st.sampled_from("abc")),
    max_size=6,
)


@given(WITNESSES)
def test_nothing_is_confirmed_without_two_roots_that_agree_and_none_that_differs(witnesses: list[Witness]) -> None:
    fact = agree("x", GLOBAL, witnesses)
    values, roots = {w.value for w in witnesses}, {w.root for w in witnesses}
    expected = UNKNOWN if not values else CONFLICT if len(values) > 1 else CONFIRMED if len(roots) > 1 else SINGLE
    assert fact.status == expected
    assert fact.value == (next(iter(values)) if len(values) == 1 else None)


@given(WITNESSES, st.integers(-(1 << 30), 1 << 30))
def test_addresses_move_with_the_kernel_and_offsets_stay(witnesses: list[Witness], slide: int) -> None:
    facts = Facts([agree("address", GLOBAL, witnesses), agree("field", OFFSET, witnesses)])
    moved = facts.moved(slide)
    before, after = facts.value("address"), moved.value("address")
    assert after == (None if before is None else before + slide)
    assert moved.value("field") == facts.value("field")
    assert [*moved.moved(-slide)] == [*facts]


def test_what_is_not_known_is_none() -> None:
    assert Facts([Fact("x", GLOBAL, None, CONFLICT)]).value("x") is None
    assert Facts().value("y") is None


def test_every_recipe_has_roots_and_every_name_is_there_once() -> None:
    recipes = load()
    assert len(recipes.names) == len(set(recipes.names)) > 100
    assert all(roots for _, _, roots in recipes.argument)
    assert all(group in recipes.classes for _, group, _ in recipes.argument)
    numbers = syscall_numbers()
    roots = [root for entry in recipes.offsets for root in entry.roots] + [*recipes.current]
    roots += [root for _, entries in recipes.only_callee for root in entries]
    unknown = [root for root in roots if root.startswith("sys:") and root[4:] not in numbers]
    assert unknown == []


def test_recipes_name_no_address_and_no_version() -> None:
    text = Path(__file__).parents[3].joinpath("src/enisle/introspect/recipes/linux.toml").read_text()
    assert "0xffff" not in text.lower()
    assert not any(f'"{major}.' in text for major in "4567")


def test_names_of_system_calls_are_those_of_the_manual() -> None:
    names = syscall_names()
    assert (names[0], names[39], names[62], names[231], names[435]) == (
        "read",
        "getpid",
        "kill",
        "exit_group",
        "clone3",
    )


def test_damaged_or_missing_kept_facts_are_as_if_not_there(tmp_path: Path) -> None:
    builder = Builder()
    builder.place(START, bytes(4096), READ_ONLY)
    image = builder.image(START, START + 4096)
    assert load_kept("key", image, tmp_path) is None
    for content in ("", "{}", "[]", '{"format": 1}', '{"format": 1, "start": "x", "facts": [[1]], "dispatch": {}}'):
        (tmp_path / "key.json").write_text(content)
        assert load_kept("key", image, tmp_path) is None
    assert cache_directory().name == "introspect"


def test_places_told_in_words_move_with_the_image_and_others_stay() -> None:
    trace = "call 0xffffffff81002000 at 0xffffffff81000010, argument 0 = 0xffffffffc0460000, offset 0x478"
    witness = Witness(0xFFFF_FFFF_8100_2000, "root", "P2", 0xFFFF_FFFF_8100_0010, trace)
    (moved,) = Facts([agree("name", GLOBAL, [witness])]).moved(0x120_0000)
    assert moved.trace == "call 0xffffffff82202000 at 0xffffffff82200010, argument 0 = 0xffffffffc0460000, offset 0x478"
