"""`enisle join`: this machine becomes a host of a platform somewhere.

Its key is made here; the platform is told the public half. What was agreed is kept beside the host's state, so that the
agent can be started again without a token.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from enisle.cli.carrying import say_json, segment
from enisle.cli.context import read_secret
from enisle.cli.following import LOOK_S
from enisle.cli.http_door import HttpDoor
from enisle.cli.output import mutter, plain, say
from enisle.cli.platform_options import PlatformOptions
from enisle.cli.task_drawing import Json
from enisle.cli.up import places_of, working
from enisle.control import Places
from enisle.errors import HostError, InvalidRequest
from enisle.tasks import identity_of, new_identity

READY = b"agent of host "
START_S = 20.0


def join(options: PlatformOptions) -> int:
    """Join a platform unless this host has, and run the agent."""
    if not options.words:
        raise InvalidRequest("which platform?", "no URL was named", "enisle join https://10.0.0.1:4600 --token -")
    places, name = places_of(options), segment(options.name or own_name(), "a host")
    places.prepare()
    agreed = places.host(name) / "joined.json"
    token = read_secret(options)
    if token or not agreed.exists():
        keep(agreed, agree(options, name, token, agreed))
    words = [sys.executable, "-m", "enisle.control", "agent", str(places.directory), "--host", name]
    words += ["--joined", str(agreed)]
    if options.detach:
        return start(options, places, name, words)
    mutter(f"enisle: host {name} of {plain(options.words[0])}; Ctrl-C ends its agent, islands go on\n")
    os.execv(words[0], words)


def own_name() -> str:
    """Return this computer's name, as a name of a platform."""
    name = socket.gethostname().partition(".")[0]
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-_") else "-" for sign in name)[:64] or "host"


def agree(options: PlatformOptions, name: str, token: str, agreed: Path) -> Json:
    """Tell the platform this host's public key; return what the agent needs. A key that was made once is kept."""
    if not token:
        raise InvalidRequest("no token to join was given", "joining needs one", "--token TOKEN, or ENISLE_TOKEN")
    seed = ""
    if agreed.exists():
        seed = str(json.loads(agreed.read_text())["seed"])
    identity = new_identity() if not seed else identity_of(seed)
    with working("joining", options.json), HttpDoor(options.words[0], token, options.ca) as door:
        told = door.ask("POST", "/v1/hosts", {}, {"name": name, "public_key": identity.public})
    return {"url": options.words[0], "engine_url": told["engine_url"], "ca": told["ca"], "seed": identity.seed}


def keep(agreed: Path, told: Json) -> None:
    """Write what was agreed, for the owner's eyes only. Raises HostError."""
    staged = agreed.with_suffix(".new")
    try:
        agreed.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(json.dumps(told))
        staged.replace(agreed)
    except OSError as error:
        raise HostError(f"cannot write {agreed}", error.strerror or "", "make room, or name a --state") from None


def start(options: PlatformOptions, places: Places, name: str, words: list[str]) -> int:
    """Leave the agent running; return when it has reached the engine."""
    begin, log = time.monotonic(), places.host(name) / "agent.log"
    with open(os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab") as file:
        written = file.tell()
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd="/", start_new_session=True
        )
    with working(f"starting the agent of {name}", options.json):
        while READY not in (said := log.read_bytes()[written:]):
            if process.poll() is not None or time.monotonic() - begin > START_S:
                process.kill()
                raise HostError(f"the agent of {name} does not start", last_line(said), f"see {log}")
            time.sleep(LOOK_S / 4)
    process.returncode = 0  # it goes on without us
    if options.json:
        say_json({"host": name, "pid": process.pid, "log": str(log)})
    else:
        say(f"joined as host {name} in {time.monotonic() - begin:.1f} s (agent: process {process.pid}, log {log})\n")
    return 0


def last_line(said: bytes) -> str:
    found = said.decode(errors="replace").strip().splitlines()
    return plain(found[-1]) if found else "it says nothing"
