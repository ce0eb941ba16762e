"""The bill of materials of a container image."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[3]
_SPEC = importlib.util.spec_from_file_location("sbom", ROOT / "deploy" / "image" / "sbom.py")
assert _SPEC is not None
assert _SPEC.loader is not None
sbom = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(sbom)

LISTING = (
    "installed\tlibc6:amd64\t2.36-9+deb12u9\tamd64\n"
    "config-files\told\t1.0\tamd64\n"
    "installed\tqemu-system-x86\t1:7.2+dfsg-7\tamd64\n"
)


def test_packages_of_debian_that_are_installed_are_components() -> None:
    parts = list(sbom.debian_packages(LISTING))

    assert [(part["name"], part["version"]) for part in parts] == [
        ("libc6", "2.36-9+deb12u9"),
        ("qemu-system-x86", "1:7.2+dfsg-7"),
    ]
    assert parts[1]["purl"] == "pkg:deb/debian/qemu-system-x86@1%3A7.2%2Bdfsg-7?arch=amd64"


def test_python_distributions_are_named_as_package_urls_want_it(tmp_path: Path) -> None:
    for name, version in (("ruamel.yaml", "0.18"), ("Jinja_Two", "3.1+local")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")

    purls = {part["purl"] for part in sbom.python_distributions([tmp_path])}

    assert purls == {"pkg:pypi/ruamel.yaml@0.18", "pkg:pypi/jinja-two@3.1%2Blocal"}


def test_kernels_of_guests_are_in_it(tmp_path: Path) -> None:
    (tmp_path / "6.12.1-cloud-amd64").mkdir()

    (part,) = sbom.guest_kernels(tmp_path)

    assert (part["type"], part["version"]) == ("operating-system", "6.12.1-cloud-amd64")


def test_the_same_packages_give_the_same_document_in_any_order() -> None:
    parts = list(sbom.debian_packages(LISTING))

    assert sbom.document(parts) == sbom.document([*reversed(parts), parts[0]])
    assert sbom.document(parts)["specVersion"] == "1.5"
    assert len(sbom.document(parts)["components"]) == 2
