"""The step `kernel`: a guest kernel from the distribution, or from a file that a user names."""

import shutil
from pathlib import Path
from typing import Final

from cli.setup.apt import Apt
from cli.setup.downloads import FILE_MOST, check_digest, digest_of, fetch
from cli.setup.kernel_folder import Kernel, KernelFolder, Origin
from cli.setup.kernel_image import KernelForm, examine_kernel
from cli.setup.machine import Machine
from services.chassis.guest_kernels import NAMED
from services.core.errors import HostUnready, RequestInvalid

_DEBIAN: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_UNPACK_SECONDS: Final = 300.0
_OWN: Final = "`lns setup --kernel FILE` takes one that you have"


class DistributionKernel:
    """Gets Debian's newest 6.12 cloud kernel, unpacked and not installed.

    Args:
        machine: where.
        kernels: where kernels are kept.
        update: whether to look for a newer one although there is one, and to leave a chosen one.
        foreign: architecture of the guests, if it is not the machine's.
    """

    def __init__(
        self, machine: Machine, kernels: KernelFolder, *, update: bool, foreign: str = ""
    ) -> None:
        self.name = "foreign kernel" if foreign else "kernel"
        self._machine = machine
        self._kernels = kernels
        self._update = update
        architecture = _DEBIAN.get(foreign or machine.architecture, machine.architecture)
        lists = kernels.path / ".apt" if foreign else None
        self._apt = Apt(machine, lists=lists, architecture=architecture)
        self._pattern = rf"linux-image-6\.12\.[0-9.]+.*-cloud-{architecture}"
        self._package = ""

    def look(self) -> str:
        """Returns the kernel that runs get; with `update`, only if none is newer."""
        kernel = self._kernels.current()
        if kernel is None:
            return ""
        if self._update:
            self._package = self._find() if self._apt.exists else ""
            if kernel.is_chosen or (self._package and kernel.folder.name != self._version):
                return ""
        return kernel.describe()

    def plan(self) -> str:
        """Returns which kernel would be fetched.

        Raises:
            HostUnready: this machine has no apt, or its apt knows no such kernel.
        """
        if not self._apt.exists:
            raise HostUnready("this machine has no apt to get a guest kernel with", hint=_OWN)
        self._package = self._package or self._find()
        return f"fetch {self._package} with apt, and unpack it into {self._kernels.path}"

    def do(self) -> str:
        """Fetches and unpacks it.

        Raises:
            HostUnready: apt or dpkg-deb could not.
            OSError: it cannot be written.
        """
        if self._kernels.find(self._version) is None:
            with self._kernels.incoming() as work:
                package = self._apt.download(self._package, work)
                digest = digest_of(package)
                unpack(self._machine, package, work / "root")
                origin = Origin(source=package.name, digest=digest)
                self._kernels.put(work / "root", self._version, origin)
        self._kernels.choose_newest()
        return _now(self._kernels).describe()

    @property
    def _version(self) -> str:
        return self._package.removeprefix("linux-image-")

    def _find(self) -> str:
        found = self._apt.find_newest(self._pattern)
        if not found:
            self._apt.refresh()
            found = self._apt.find_newest(self._pattern)
        if not found:
            known = self._pattern.replace("\\", "").replace("[0-9.]+.*", "*")
            raise HostUnready(
                f"apt knows no {known}", hint=f"{_OWN}; or add a Debian suite that has it to apt"
            )
        return found


class NamedKernel:
    """Takes a kernel that a user names, and has runs get it.

    Args:
        machine: where.
        kernels: where kernels are kept.
        source: a file or an address.
        digest: what it must have; empty for whatever it has.
        update: whether to fetch an address that was fetched before.
    """

    name = "kernel"

    def __init__(
        self, machine: Machine, kernels: KernelFolder, source: str, *, digest: str, update: bool
    ) -> None:
        self._machine = machine
        self._kernels = kernels
        self._source = source
        self._digest = digest
        self._update = update

    def look(self) -> str:
        """Returns the chosen kernel, if it is the one that is named.

        Raises:
            OSError: the file cannot be read.
        """
        kernel = self._kernels.current()
        if kernel is None or not kernel.is_chosen or kernel.origin is None:
            return ""
        if self._is_address:
            same = kernel.origin.source == self._shown and not self._update
            is_wanted = not self._digest or kernel.origin.digest == self._digest
            return kernel.describe() if same and is_wanted else ""
        found = digest_of(Path(self._source))
        is_wanted = not self._digest or found == self._digest
        return kernel.describe() if found == kernel.origin.digest and is_wanted else ""

    def plan(self) -> str:
        """Returns what would be taken.

        Raises:
            RequestInvalid: the file is larger than any kernel.
            OSError: the file cannot be read.
        """
        if not self._is_address and Path(self._source).stat().st_size > FILE_MOST:
            raise RequestInvalid(f"{self._source} is too large for a kernel", hint=_OWN)
        verb = "fetch" if self._is_address else "copy"
        return f"{verb} {self._shown} into {self._kernels.path}, for all runs"

    def do(self) -> str:
        """Takes it.

        Raises:
            LnsError: it cannot be fetched, is no kernel, or has another digest.
            OSError: it cannot be read or written.
        """
        with self._kernels.incoming() as work:
            file = work / "kernel"
            if self._is_address:
                digest = fetch(self._source, file, digest=self._digest)
            else:
                shutil.copyfile(self._source, file)
                digest = digest_of(file)
                check_digest(digest, self._digest, name=self._source)
            name = self._prepared(file, work / "root", digest)
            origin = Origin(source=self._shown, digest=digest)
            if self._kernels.find(name) is None:
                self._kernels.put(work / "root", name, origin)
        self._kernels.choose(name)
        return _now(self._kernels).describe()

    @property
    def _is_address(self) -> bool:
        return "://" in self._source

    @property
    def _shown(self) -> str:
        """The source as it is recorded; what follows a `?` may be a secret."""
        if self._is_address:
            return self._source.partition("?")[0]
        return str(Path(self._source).absolute())

    def _prepared(self, file: Path, root: Path, digest: str) -> str:
        """Unpacks a kernel into a new folder and returns the name of it."""
        found = examine_kernel(file, name=self._source)
        if found.form is KernelForm.PACKAGE:
            unpack(self._machine, file, root)
            release = next(root.glob("boot/vmlinuz-*")).name.removeprefix("vmlinuz-")
        else:
            release = found.release
            (root / "boot").mkdir(parents=True)
            file.rename(root / "boot" / f"vmlinuz-{release}")
            self._add_modules(root / "lib" / "modules" / release)
        return f"{NAMED}/{release}-{digest.removeprefix('sha256:')[:12]}"

    def _add_modules(self, folder: Path) -> None:
        """Uses the modules that belong to a file, else none: what it needs is built in, then."""
        folder.parent.mkdir(parents=True)
        if not self._is_address:
            above = Path(self._source).resolve().parent.parent
            for known in (above / "usr/lib/modules", above / "lib/modules"):
                if (known / folder.name).is_dir():
                    folder.symlink_to(known / folder.name)
                    return
        folder.mkdir()


def unpack(machine: Machine, package: Path, root: Path) -> None:
    """Unpacks a Debian package with a kernel into a new folder.

    Raises:
        HostUnready: it cannot be unpacked, or has no kernel.
    """
    if machine.find("dpkg-deb") is None:
        raise HostUnready("this machine has no dpkg-deb to unpack it with", hint=_OWN)
    root.mkdir()
    code, output = machine.call("dpkg-deb", "-x", str(package), str(root), seconds=_UNPACK_SECONDS)
    if code:
        raise HostUnready(f"dpkg-deb could not: {output[-300:]}", hint="name another package")
    if not any(root.glob("boot/vmlinuz-*")):
        raise HostUnready("the package has no kernel", hint="name a linux-image package")


def _now(kernels: KernelFolder) -> Kernel:
    kernel = kernels.current()
    if kernel is None:
        raise HostUnready(f"the kernel in {kernels.path} was removed meanwhile", hint="try again")
    return kernel
