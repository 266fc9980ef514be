"""`enisle up` and `down`: the platform of this machine."""

import importlib.util
import ipaddress
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from enisle.cli.carrying import say_json, segment
from enisle.cli.following import DRAWN_AFTER_S, LOOK_S, Screen
from enisle.cli.output import mutter, plain, say, tell_note
from enisle.cli.platform_options import PlatformOptions
from enisle.cli.task_drawing import Json
from enisle.control import Places, PlatformInfo, platform_info, require_layout, start_platform, stop_platform
from enisle.errors import HostError, InvalidRequest, StateError

NEEDED = ("nats", "nkeys", "msgspec", "starlette", "uvicorn", "httpx")
START_S = 30.0
INSTALL = "pip install 'enisle[platform]'"


def up(options: PlatformOptions) -> int:
    """Run one of the two; return the exit code."""
    match options.verb:
        case "up":
            return start(options)
        case "down":
            return stop(options)
        case verb:
            raise AssertionError(f"{verb=}")


def places_of(options: PlatformOptions) -> Places:
    return Places(options.state) if options.state else Places.default()


@contextmanager
def working(text: str, quiet: bool) -> Generator[None]:
    """Show that something is being done, when it takes long enough to be seen."""
    screen, over = Screen(quiet), threading.Event()
    begin = time.monotonic()

    def draw() -> None:
        while not over.wait(LOOK_S if time.monotonic() - begin > DRAWN_AFTER_S else DRAWN_AFTER_S):
            if screen.drawn:
                screen.write(f"{text}  {time.monotonic() - begin:.1f} s")

    drawing = threading.Thread(target=draw, daemon=True)
    drawing.start()
    try:
        yield
    finally:
        over.set()
        drawing.join()
        screen.clear()


# ---- up ----------------------------------------------------------------------------------------------------------


def start(options: PlatformOptions) -> int:
    """Start the platform, or say that it is there; remember it as a context."""
    if not 0 <= options.port <= 65535:
        raise InvalidRequest(f"there is no port {options.port}", "ports are 1 to 65535", "--port 4600")
    require_extra()
    places, begin = places_of(options), time.monotonic()
    there = running(places)
    if there and there.joined:
        why = f"{places.directory} is that of host {there.host} of {there.url}"
        raise StateError("no platform can start here", why, "name another with --state, or `enisle down` first")
    if there is None and options.foreground:
        return stay(options, places)
    if there is None:
        asked = wanted(options)
        with working("starting the platform", options.quiet or options.json):
            try:
                info = start_platform(places, **asked)
            except StateError:  # another one is starting it
                there = wait_for_other(places)
                if there is None:
                    raise
                info = there
        tell_address(options, places, info, None if there else time.monotonic() - begin)
    else:
        if options.accept_store:
            why = "it looks at its store when it starts"
            raise StateError("the platform is up already", why, "enisle down, then enisle up --accept-store")
        tell_address(options, places, there, None)
    return 0


def wait_for_other(places: Places) -> PlatformInfo | None:
    """Return the platform that somebody else is starting; None when it does not come."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if found := running(places):
            return found
        time.sleep(LOOK_S)
    return None


def require_extra() -> None:
    """Raises HostError when what only the platform needs is not installed."""
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise HostError(f"{name} is not installed", "the platform needs more than islands", INSTALL)


def require_private(options: PlatformOptions) -> None:
    """Raises InvalidRequest when tokens would cross a network in the clear."""
    try:
        private = options.listen == "localhost" or ipaddress.ip_address(options.listen).is_loopback
    except ValueError:
        private = False
    if not (private or options.tls_certificate or options.insecure):
        why, hint = (
            "tokens would cross the network in the clear",
            "--tls-certificate FILE --tls-key FILE, or --insecure",
        )
        raise InvalidRequest(f"will not listen on {plain(options.listen)} without TLS", why, hint)


def stay(options: PlatformOptions, places: Places) -> int:
    """Be the platform's supervisor until a signal ends it."""
    begin = time.monotonic()

    def ready(info: PlatformInfo) -> None:
        tell_address(options, places, info, time.monotonic() - begin)

    start_platform(places, foreground=True, ready=ready, **wanted(options))
    return 0


def running(places: Places) -> PlatformInfo | None:
    """Return the platform that is up."""
    try:
        return platform_info(places)
    except StateError:
        return None


def wanted(options: PlatformOptions) -> Json:
    """Return the words as the platform takes them. Raises InvalidRequest, HostError for files that cannot be read."""
    require_private(options)
    for file in filter(None, (options.tls_certificate, options.tls_key)):
        if not os.access(file, os.R_OK):
            raise HostError(f"cannot read {plain(file)}", "it is not there, or not yours", "name a file in PEM")
    if bool(options.tls_certificate) != bool(options.tls_key):
        raise InvalidRequest("a certificate and its key belong together", "one is missing", "--tls-key FILE")
    return {
        "listen": options.listen,
        "port": options.port,
        "engine_url": options.nats,
        "server": os.path.abspath(options.engine) if options.engine else "",
        "agent": not options.no_agent,
        "accept_store": options.accept_store,
        "host": segment(options.host, "a host") if options.host else "",
        "certificate": os.path.abspath(options.tls_certificate) if options.tls_certificate else "",
        "key": os.path.abspath(options.tls_key) if options.tls_key else "",
        "insecure": options.insecure,
        "controller": require_layout(options.controller),
    }


def tell_address(options: PlatformOptions, places: Places, info: PlatformInfo, seconds: float | None) -> None:
    """Remember a platform, and print the address that signs a browser in."""
    from enisle.api import sign_in_code

    switched = remember(places, info, wanted(options)["certificate"])

    address = f"{info.url}/?code={sign_in_code(places.directory)}"
    if options.json:
        told = {"url": info.url, "sign_in": address, "pid": info.pid, "state": str(places.directory)}
        say_json(told | {"started": seconds is not None})
    elif options.quiet:
        say(f"{address}\n")
    else:
        what = "the platform is up already" if seconds is None else f"started the platform in {seconds:.1f} s"
        mutter(f"enisle: {what} ({plain(places.directory)}); its console, signed in once, for two minutes:\n")
        say(f"{address}\n")
        if switched and switched != "local":
            tell_note(f"the context {switched} is the current one now")


def remember(places: Places, info: PlatformInfo, certificate: str) -> str:
    """Make the platform the one that other verbs speak to; return its context's name when another one was."""
    from enisle.api import changed_contexts

    name = context_name(places)
    with changed_contexts() as known:
        before = known["contexts"].get(name, {})
        ca = certificate or (before.get("ca", "") if before.get("url") == info.url else "")
        known["contexts"][name] = {"url": info.url, "token": read_token(places), "ca": ca}
        if known["current"] != name:
            known["current"] = name
            return name
    return ""


def read_token(places: Places) -> str:
    """Return the token of the platform's owner. Raises HostError."""
    try:
        return places.token.read_text().strip()
    except OSError as error:
        hint = "ask as the user who started it"
        raise HostError(f"cannot read {places.token}", os.strerror(error.errno or 0), hint) from None


def context_name(places: Places) -> str:
    """Return what the platform of a directory is called: local, or after a directory of its own."""
    usual = Places.default().directory == places.directory and not os.environ.get("ENISLE_STATE")
    return "local" if usual else f"local-{fit_name(places.directory.name)}"


def fit_name(text: str) -> str:
    """Return what of a directory's name may stand in a context's."""
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-_.") else "-" for sign in text)[:50]


# ---- down --------------------------------------------------------------------------------------------------------


def stop(options: PlatformOptions) -> int:
    """End the platform of this machine."""
    places, begin = places_of(options), time.monotonic()
    with working("ending the platform", options.json):
        info = stop_platform(places, islands=options.islands)
    if options.json:
        say_json({"url": info.url, "state": str(places.directory), "islands": options.islands})
    else:
        what = f"the agent of {info.host}" if info.joined else "the platform"
        say(f"stopped {what}{' and its islands' * options.islands} in {time.monotonic() - begin:.1f} s\n")
    return 0
