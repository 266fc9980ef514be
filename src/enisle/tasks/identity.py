"""Who hosts are to the engine: a key each, and an account each that holds nothing but what is the host's own.

Permissions on subjects are not enough: the engine sends its answers wherever a request says, in the name of nobody, so
a host that may read one key of its own could have it written over any other. In an account of its own a host reaches
the store only through named imports, and the answers end in that account. Pure text; nothing here does I/O.
"""

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from enisle.errors import HostError, InvalidRequest
from enisle.records import Record
from enisle.tasks.buckets import BEGINNINGS, POOL, RUN
from enisle.tasks.names import require_token

PUBLIC = re.compile(r"U[A-Z2-7]{55}\Z")
HOST_API = "API."
"""What an engine's own interface is called in a host's account, instead of $JS.API."""
WATCHED = ("asg", "stop", "cfg")

EXPORTS = (
    "$KV.ctl.asg.>",
    "$KV.ctl.host.*",
    "$KV.prog.prog.>",
    "$KV.prog.live.>",
    "$KV.obj.obj.>",
    "$JS.API.DIRECT.GET.>",
    "$JS.API.CONSUMER.CREATE.KV_ctl.>",
    "$JS.API.CONSUMER.DELETE.KV_ctl.*",
    f"$JS.ACK.{RUN}.>",
    "res.>",
    "beg.>",
)
STREAMED = ("$JS.API.CONSUMER.MSG.NEXT.KV_ctl.*", f"$JS.API.CONSUMER.MSG.NEXT.{RUN}.*")


class Identity(Record):
    """A host's key pair: the seed stays with the host, the public key is what the engine knows it by."""

    seed: str
    public: str


def new_identity() -> Identity:
    """Make a key pair for a host. Raises HostError when the library for it is not installed."""
    nkeys = _nkeys()
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return Identity(bytes(seed).decode(), _public(nkeys, seed))


def identity_of(seed: str) -> Identity:
    """Return the key pair of a seed. Raises InvalidRequest when it is none."""
    nkeys = _nkeys()
    try:
        return Identity(seed, _public(nkeys, seed.encode()))
    except Exception as error:  # the library raises whatever its parts raise
        why = type(error).__name__
        raise InvalidRequest("this is no host's seed", why, "`enisle join` makes one") from None


def _public(nkeys: Any, seed: bytes) -> str:
    return nkeys.from_seed(bytearray(seed)).public_key.decode()


def _nkeys() -> Any:
    try:
        import nkeys
    except ImportError:
        why = "nkeys is not installed"
        raise HostError("hosts cannot be told apart", why, "pip install 'enisle[platform]'") from None
    return nkeys


def require_public(key: object) -> str:
    """Return a public key of a host. Raises InvalidRequest."""
    if isinstance(key, str) and PUBLIC.match(key):
        return key
    why = "one begins with U and has 56 letters"
    raise InvalidRequest("this is no host's public key", why, "`enisle join` makes it")


def consumer_name(host: str, kind: str) -> str:
    """Return what a host's watch of one kind of keys is called: a whole token, which no name of a host can be."""
    return f"{host}={kind}"


def accounts(password: str, system: str, hosts: Mapping[str, str]) -> str:
    """Return the engine's accounts: ours with the store, one for questions, one for each host, one of the system."""
    text = json.dumps  # a quoted string of JSON is one of the engine's configuration too
    lines = [f"SYSTEM {{ users: [{{user: system, password: {text(system)}}}] }}", *_platform(text(password), hosts)]
    return "\n".join(["accounts {", *lines, "}", "system_account: SYSTEM", ""])


def cluster_accounts(hosts: Mapping[str, str]) -> str:
    """Return the same for servers that are not ours, to be put in the configuration of each by their operator.

    The password is theirs, a variable: `$ENISLE_PASSWORD` in the environment of the servers.
    """
    return "\n".join(["accounts {", *_platform("$ENISLE_PASSWORD", hosts), "}", ""])


def _platform(password: str, hosts: Mapping[str, str]) -> list[str]:
    """Return the platform's accounts and its hosts'; `password` as it stands in a configuration."""
    text = json.dumps
    exports = [f"{{service: {text(subject)}}}" for subject in EXPORTS]
    exports += [f"{{service: {text(subject)}, response_type: stream}}" for subject in STREAMED]
    asked = [f"{{service: {{account: HOST_{host}, subject: {text('ask.' + host)}}}}}" for host in hosts]
    return [
        f"ENISLE {{ jetstream: enabled, users: [{{user: enisle, password: {password}}}]",
        f"  exports: [{', '.join(exports)}] }}",
        # A consumer pushes wherever its maker says: nothing that can be guessed listens where the store is.
        f"QUESTIONS {{ users: [{{user: questions, password: {password}}}], imports: [{', '.join(asked)}] }}",
        *(_host_account(require_token("a host", host), require_public(key)) for host, key in hosts.items()),
    ]


def _host_account(host: str, public: str) -> str:
    """Return the account of a host: what it may write, read and watch, each a whole token at the engine."""
    own = [f"$KV.ctl.asg.{host}.>", f"$KV.ctl.host.{host}", f"$KV.prog.prog.{host}.>", f"$KV.prog.live.{host}.>"]
    # An object is named by its content's hash and checked when read: writing over one can only make it unreadable.
    own.append("$KV.obj.obj.>")
    read = [*own, f"$KV.ctl.stop.{host}.>", "$KV.ctl.cfg.epoch", f"$KV.ctl.member.{host}"]
    api = [f"DIRECT.GET.KV_{subject.split('.')[1]}.{subject}" for subject in read]
    for kind in WATCHED:
        name, rest = consumer_name(host, kind), "epoch" if kind == "cfg" else f"{host}.>"
        api += [f"CONSUMER.CREATE.KV_ctl.{name}.$KV.ctl.{kind}.{rest}"]
        api += [f"CONSUMER.DELETE.KV_ctl.{name}", f"CONSUMER.MSG.NEXT.KV_ctl.{name}"]
    # Calls of its pool: taken, beaten for and acknowledged, begun, answered. Whose they are is in the subject.
    lane = [f"$JS.ACK.{RUN}.{POOL}.>", f"res.{POOL}.>", f"beg.{POOL}.>"]
    api += [f"CONSUMER.MSG.NEXT.{RUN}.{POOL}", f"DIRECT.GET.{BEGINNINGS}.beg.{POOL}.>"]
    imports = [_import(subject) for subject in (*own, *lane)]
    imports += [_import(f"$JS.API.{subject}", HOST_API + subject) for subject in api]
    users = f'[{{nkey: "{public}"}}]'
    return f'HOST_{host} {{ users: {users}, exports: [{{service: "ask.{host}"}}]\n  imports: [{", ".join(imports)}] }}'


def _import(subject: str, to: str = "") -> str:
    named = f", to: {json.dumps(to)}" if to else ""
    return f"{{service: {{account: ENISLE, subject: {json.dumps(subject)}}}{named}}}"
