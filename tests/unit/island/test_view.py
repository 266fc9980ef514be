"""What of the host an island shows is decided without looking at it."""

from hypothesis import given
from hypothesis import strategies as st

from enisle.island.configuration import Configuration, Mount
from enisle.island.view import OWN, Bind, guest_environment, plan_view

HOMES = ("/home/ann", "/users/bob")


def test_the_working_directory_is_shown_read_only_at_its_own_path() -> None:
    view = plan_view(Configuration(), "/home/ann/project", HOMES, ())
    assert view.binds == (Bind("/home/ann/project", "/home/ann/project", False),)
    assert view.cwd == "/home/ann/project"
    assert not view.notes


def test_homes_and_what_contains_them_stay_invisible_and_the_user_is_told() -> None:
    for place in ("/home/ann", "/home/eve", "/home", "/users/bob", "/users", "/root", "/home/ann/.ssh", "/root/.aws/x"):
        view = plan_view(Configuration(), place, HOMES, ())
        assert (view.binds, view.cwd) == ((), "/"), place
        assert len(view.notes) == 1


def test_standing_in_the_root_needs_no_note() -> None:
    assert plan_view(Configuration(), "/", HOMES, ()) == ((), "/", ())


def test_system_directories_are_not_shown_twice() -> None:
    assert plan_view(Configuration(), "/usr/share/doc", HOMES, ("/usr/local",)) == ((), "/usr/share/doc", ())


def test_an_island_has_a_tmp_of_its_own_but_shows_a_directory_in_it() -> None:
    assert plan_view(Configuration(), "/tmp", HOMES, ()).cwd == "/tmp"
    assert plan_view(Configuration(), "/tmp", HOMES, ()).binds == ()
    assert plan_view(Configuration(), "/tmp/work", HOMES, ()).binds == (Bind("/tmp/work", "/tmp/work", False),)


def test_a_deleted_working_directory_is_told() -> None:
    assert plan_view(Configuration(), None, HOMES, ()).cwd == "/"
    assert plan_view(Configuration(), None, HOMES, ()).notes


def test_a_mount_over_the_working_directory_replaces_it() -> None:
    configuration = Configuration(mounts=(Mount("/data", "/data", True),))
    assert plan_view(configuration, "/data/today", HOMES, ()).binds == (Bind("/data", "/data", True),)


def test_the_running_python_is_shown_wherever_it_is() -> None:
    prefixes = ("/home/ann/p/.venv", "/home/ann/.pyenv/versions/3.12")
    view = plan_view(Configuration(), "/home/ann/p", HOMES, prefixes)
    assert [bind.destination for bind in view.binds] == ["/home/ann/.pyenv/versions/3.12", "/home/ann/p"]


def test_a_root_of_its_own_shows_nothing_but_mounts() -> None:
    configuration = Configuration(root="/images/a", mounts=(Mount("/d", "/d", False),))
    assert plan_view(configuration, "/home/ann/p", HOMES, ("/opt/py",)) == ((Bind("/d", "/d", False),), "/", ())


names = st.sampled_from(["home", "ann", "root", "tmp", "usr", "x", "proc", "run", ".ssh", "etc", "var"])
paths = st.lists(names, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(cwd=paths, prefixes=st.lists(paths, max_size=3), homes=st.lists(paths.filter(lambda p: p != "/"), max_size=2))
def test_nothing_shown_uninvited_is_or_contains_a_home(cwd: str, prefixes: list[str], homes: list[str]) -> None:
    view = plan_view(Configuration(), cwd, homes, ())
    for bind in view.binds:
        assert not bind.writable
        assert bind.destination not in OWN
        assert not any(home == bind.source or home.startswith(bind.source + "/") for home in (*homes, "/root"))
    assert len({bind.destination for bind in plan_view(Configuration(), cwd, homes, prefixes).binds}) <= 1 + len(
        prefixes
    )


def test_the_first_program_gets_none_of_the_hosts_variables() -> None:
    environment = guest_environment(Configuration(environment=(("A", "1"),)), "/root", "xterm", ("/opt/py",))
    assert environment == {
        "PATH": "/opt/py/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TERM": "xterm",
        "A": "1",
    }
