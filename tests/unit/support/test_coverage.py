"""What `make coverage` makes of a measurement."""

import pytest

from tests.coverage.__main__ import below, package_of, raised, reached


@pytest.mark.parametrize(
    ("file", "package"),
    [
        ("services/vm_runner/life/boot.py", "services.vm_runner.life"),
        ("services/vm_runner/adapters/qemu/machine.py", "services.vm_runner.adapters"),
        ("services/core/digest.py", "services.core"),
        ("cli/main.py", "cli"),
        ("lns/client/running/launch.py", "lns.client.running"),
    ],
)
def test_a_module_counts_for_its_package(file: str, package: str) -> None:
    assert package_of(file) == package


def test_lines_are_counted_by_package() -> None:
    files = {
        "cli/a.py": {"summary": {"covered_lines": 1, "num_statements": 4}},
        "cli/b.py": {"summary": {"covered_lines": 4, "num_statements": 4}},
        "services/core/__init__.py": {"summary": {"covered_lines": 0, "num_statements": 0}},
    }

    assert reached({"files": files}) == {"cli": 62.5}


def test_a_floor_only_rises() -> None:
    floors = {"cli": 60, "services.core": 99, "gone": 50}
    found = {"cli": 62.5, "services.core": 98.9, "new": 10.0}

    assert below(found, floors) == ["services.core"]
    assert raised(found, floors) == {"cli": 62, "services.core": 99, "new": 10}
