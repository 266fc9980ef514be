"""Debian's package files from the mirror that this machine's apt uses, by apt's own means (apt-helper, apt-get), and
wheels by pip.

Promises: what is returned has the hash asked for. Changes nothing of the system's apt: other suites are looked up with
a list of sources and a state directory of their own.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from enisle.errors import HostError, NotFound
from guests.manifest import Package

APT_HELPER = "/usr/lib/apt/apt-helper"
SUITES = {
    "debian": ("bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "forky", "sid"),
    "debian-security": ("bullseye-security", "bookworm-security", "trixie-security"),
}
VARIABLE = "ENISLE_DEBIAN_MIRROR"
"""Says where Debian's archive is where apt does not know; `{archive}` stands for debian or debian-security."""


def mirrors() -> dict[str, str]:
    """Return the base addresses of Debian's archives by name. Raises HostError where apt knows none."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return {archive: chosen.replace("{archive}", archive).rstrip("/") for archive in SUITES}
    found: dict[str, str] = {}
    for line in _indexes():
        address, release, component = line.split()
        if component == "main" and release.partition("-")[0] in ("bullseye", "bookworm", "trixie", "forky", "sid"):
            archive = "debian-security" if release.endswith("-security") else "debian"
            found.setdefault(archive, address.rstrip("/"))
    if "debian" not in found:
        why = "apt's sources name no suite of Debian"
        raise HostError("no mirror of Debian is known", why, f"set {VARIABLE} to the address of one")
    # A mirror without a security archive carries the newest kernels of stable suites only.
    found.setdefault("debian-security", found["debian"] + "-security")
    return found


def _indexes() -> list[str]:
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError) as error:
        raise HostError(
            "cannot ask apt for its mirrors", str(error), f"on other systems than Debian set {VARIABLE}"
        ) from error


def download(package: Package, place: Path) -> None:
    """Fetch one package file. Raises NotFound when the mirror has let it go, HostError for any other failure."""
    if package.archive == "pypi":
        _download_wheel(package, place)
        return
    address = f"{mirrors()[package.archive]}/{package.path}"
    if not os.path.exists(APT_HELPER):
        raise HostError(f"cannot fetch {address}", f"{APT_HELPER} is missing", "packages are fetched by apt: Debian")
    # apt leaves its partial file beside the result; a directory of its own is gone with it.
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".fetch-") as directory:
        partial = Path(directory) / "package.deb"
        options = ["-o", "APT::Sandbox::User=", "-q"]
        command = [APT_HELPER, *options, "download-file", address, str(partial), f"SHA256:{package.sha256}"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"})
        if done.returncode:
            raise _explain(address, done.stdout + done.stderr)
        os.replace(partial, place)


def _download_wheel(package: Package, place: Path) -> None:
    """Fetch a wheel by pip, installing nothing."""
    name, version = package.path.split("-")[:2]
    platform = package.path.removesuffix(".whl").rpartition("-")[2]
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".fetch-") as directory:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--platform", platform, "--dest", directory, f"{name}=={version}"]
        done = subprocess.run(command, capture_output=True, text=True)
        found = Path(directory) / package.path
        if done.returncode or not found.exists():
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            why = lines[-1] if lines else done.stderr.strip()[-200:]
            if "No matching distribution" in done.stderr:
                raise NotFound(f"{package.path} is gone from the package index", why, "pin a later one")
            raise HostError(f"cannot fetch {package.path}", why, "check the network, or pip's configuration")
        os.replace(found, place)


def _explain(address: str, said: str) -> HostError | NotFound:
    lines = [line.strip() for line in said.splitlines() if line.startswith(("E:", "  "))]
    why = lines[0] if lines else said.strip()[-200:]
    if "404 " in said:
        return NotFound(f"{address} is gone from the mirror", "Debian keeps few old kernels", "tools/kernels pin")
    if "Hash Sum mismatch" in said:
        return HostError(f"{address} is not what was pinned", "its SHA-256 differs", "do not use that mirror")
    return HostError(f"cannot fetch {address}", why, "check the network, or apt-get update")


def look_up(names: list[str]) -> str:
    """Return what the mirror's signed indexes say of packages of any suite, as `apt-cache show` prints it."""
    keyring = next(Path("/usr/share/keyrings").glob("debian-archive-keyring.*"), None)
    if keyring is None:
        raise HostError("cannot check the mirror's signature", "debian-archive-keyring is missing", "install it")
    known = mirrors()
    with tempfile.TemporaryDirectory(prefix="enisle-apt-") as state:
        sources = Path(state) / "sources.list"
        sources.write_text(
            "".join(
                f"deb [arch=amd64 signed-by={keyring}] {known[archive]} {suite} main\n"
                for archive, suites in SUITES.items()
                for suite in suites
            )
        )
        for directory in ("lists/partial", "cache/archives/partial"):
            (Path(state) / directory).mkdir(parents=True)
        own = {
            "Dir::Etc::sourcelist": str(sources),
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": f"{state}/lists",
            "Dir::Cache": f"{state}/cache",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "",
        }
        options = [word for name, value in own.items() for word in ("-o", f"{name}={value}")]
        updated = subprocess.run(["apt-get", *options, "-q", "update"], capture_output=True, text=True)
        if updated.returncode:
            raise HostError("cannot read the mirror's indexes", updated.stderr.strip()[-300:], "check the network")
        shown = subprocess.run(["apt-cache", *options, "show", *names], capture_output=True, text=True)
    return shown.stdout
