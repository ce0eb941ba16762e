"""Writes what an image is made of: `python3 sbom.py FILE`, as CycloneDX 1.5.

The components are the packages of Debian (from dpkg's database), the Python distributions next to
this file's environment and the guest kernels. The same image gives the same bytes: there is no
time and no serial number in the document. It needs nothing but Python's library.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import quote

ENVIRONMENT = Path("/opt/lns/lib")
KERNELS = Path("/usr/share/lns/kernel")
_DPKG_FORMAT = "${db:Status-Status}\t${binary:Package}\t${Version}\t${Architecture}\n"

Component = dict[str, str]


def component(kind: str, name: str, version: str, purl: str) -> Component:
    """Returns one component; `purl` names it for every tool that looks for known faults."""
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def debian_packages(listing: str) -> Iterator[Component]:
    """Yields the installed packages of a listing in `_DPKG_FORMAT`."""
    for line in listing.splitlines():
        status, name, version, architecture = line.split("\t")
        if status == "installed":
            name = name.partition(":")[0]
            purl = f"pkg:deb/debian/{name}@{quote(version, safe='')}?arch={architecture}"
            yield component("library", name, version, purl)


def python_distributions(paths: Iterable[Path]) -> Iterator[Component]:
    """Yields the distributions in folders of Python packages."""
    for distribution in distributions(path=[str(path) for path in paths]):
        name = distribution.metadata["Name"].lower().replace("_", "-")  # as package URLs want it
        version = quote(distribution.version, safe="")
        yield component("library", name, distribution.version, f"pkg:pypi/{name}@{version}")


def guest_kernels(folder: Path) -> Iterator[Component]:
    """Yields the kernels that guests boot: one folder each, named by its version."""
    for path in folder.glob("[0-9]*"):
        name = f"linux-image-{path.name}"
        yield component("operating-system", name, path.name, f"pkg:deb/debian/{name}")


def document(components: Iterable[Component]) -> dict[str, object]:
    """Returns the document, with each component once and in the order of their names."""
    unique = {part["bom-ref"]: part for part in components}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": [unique[reference] for reference in sorted(unique)],
    }


def main(arguments: list[str]) -> int:
    """Write the document of this image; returns the exit code."""
    if len(arguments) != 1:
        print("usage: sbom.py FILE", file=sys.stderr)
        return 2
    listing = subprocess.run(
        ["dpkg-query", "--show", f"--showformat={_DPKG_FORMAT}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    packages = ENVIRONMENT.glob("python3.*/site-packages")
    components = [
        *debian_packages(listing),
        *python_distributions(packages),
        *guest_kernels(KERNELS),
    ]
    file = Path(arguments[0])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document(components), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
