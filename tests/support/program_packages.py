"""Package indexes of the tests' own: one package for pip, npm and apt, and a git repository."""

import base64
import hashlib
import io
import json
import subprocess
import tarfile
import zipfile
from pathlib import Path

from tests.support.program_servers import ProgramServers

WHEEL = "barley-1.0-py3-none-any.whl"


def publish_all(servers: ProgramServers) -> None:
    """Puts the packages and the repository where the servers find them."""
    _publish_wheel(servers)
    _publish_npm(servers)
    _publish_deb(servers)
    repository = servers.directory / "git.test" / "field.git"
    repository.parent.mkdir(parents=True)
    _git("init", "--quiet", "--bare", "--initial-branch=main", str(repository))
    _git("-C", str(repository), "config", "http.receivepack", "true")


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True)


def _publish_wheel(servers: ProgramServers) -> None:
    info = "barley-1.0.dist-info"
    files = {
        "barley.py": b"GROWS = 'barley grows'\n",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: barley\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    servers.write(f"pypi.test/files/{WHEEL}", buffer.getvalue())
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    page = f'<!doctype html><a href="../../files/{WHEEL}#sha256={sha256}">{WHEEL}</a>'
    servers.write("pypi.test/simple/barley/index", page.encode())


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _publish_npm(servers: ProgramServers) -> None:
    files = {
        "package/package.json": b'{"name": "barley", "version": "1.0.0", "main": "index.js"}',
        "package/index.js": b"module.exports = 'barley grows';\n",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    servers.write("npm.test/barley/-/barley-1.0.0.tgz", buffer.getvalue())
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(buffer.getvalue()).digest()).decode()
    address = f"https://npm.test:{servers.port}/barley/-/barley-1.0.0.tgz"
    version = {
        "name": "barley", "version": "1.0.0", "dist": {"tarball": address, "integrity": integrity},
    }  # fmt: skip
    packument = {
        "name": "barley", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version},
    }  # fmt: skip
    servers.write("npm.test/barley/index", json.dumps(packument).encode())


def _publish_deb(servers: ProgramServers) -> None:
    folder = servers.directory / "apt.test"
    tree = folder / "tree"
    control = (
        "Package: barley\nVersion: 1.0\nArchitecture: all\n"
        "Maintainer: x <x@example.com>\nDescription: grows\n"
    )
    servers.write("apt.test/tree/DEBIAN/control", control.encode())
    servers.write("apt.test/tree/usr/bin/barley", b"#!/bin/sh\necho barley grows\n").chmod(0o755)
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(folder / "barley.deb")],
        check=True, capture_output=True,
    )  # fmt: skip
    package = (folder / "barley.deb").read_bytes()
    sha256 = hashlib.sha256(package).hexdigest()
    entry = f"{control}Filename: ./barley.deb\nSize: {len(package)}\nSHA256: {sha256}\n"
    listed = servers.write("apt.test/Packages", entry.encode()).read_bytes()
    release = f"SHA256:\n {hashlib.sha256(listed).hexdigest()} {len(listed)} Packages\n"
    servers.write("apt.test/Release", release.encode())


def repository_of(servers: ProgramServers) -> Path:
    """Returns the bare repository."""
    return servers.directory / "git.test" / "field.git"
