"""The protos follow buf's rules, and break nobody who was built against the released ones."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).with_name("buf")
BASELINE = ROOT / "protos" / "released.binpb"


def buf(*arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs buf where `root` holds `buf.yaml` and the protos."""
    return subprocess.run(
        [BUF, *arguments], cwd=root, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("lint",),
        ("format", "--diff", "--exit-code"),
        ("breaking", "--against", str(BASELINE)),
    ],
    ids=["lint", "format", "breaking"],
)
def test_the_protos_pass(arguments: tuple[str, ...]) -> None:
    result = buf(*arguments)

    assert result.returncode == 0, result.stdout + result.stderr


def test_the_published_protos_are_as_published() -> None:
    """`protos/google` is the copy that buf reads; Python reads that of googleapis-common-protos."""
    import google.rpc  # noqa: PLC0415  # a namespace whose files are looked for

    copy = ROOT / "protos" / "google" / "rpc" / "status.proto"
    (folder,) = google.rpc.__path__

    assert copy.read_bytes() == (Path(folder) / "status.proto").read_bytes()


def test_a_change_that_breaks_a_client_is_noticed(tmp_path: Path) -> None:
    for source in [ROOT / "buf.yaml", *(ROOT / "protos").rglob("*.proto")]:
        target = tmp_path / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    changed = tmp_path / "protos" / "lns" / "types" / "v1" / "descriptor.proto"
    changed.write_text(changed.read_text().replace("int64 size_bytes = 3", "int32 size_bytes = 3"))

    result = buf("breaking", "--against", str(BASELINE), root=tmp_path)

    assert result.returncode != 0
    assert "size_bytes" in result.stdout
