from services.vm_runner.adapters.boot_files.initramfs import build_initramfs


def parse(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Modes and contents of a `newc` archive by name."""
    found = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        at += (110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, archive[at : at + size])
        at += (size + 3) & ~3


def test_the_agent_is_init_and_modules_keep_their_order() -> None:
    entries = parse(build_initramfs(agent=b"agent", modules=[("b", b"BB"), ("a", b"A")]))

    assert entries["init"] == (0o100755, b"agent")
    assert [name for name in entries if name.startswith("modules/")] == [
        "modules/000-b.ko",
        "modules/001-a.ko",
    ]
    assert entries["modules/000-b.ko"] == (0o100644, b"BB")
    assert entries["dev/console"][0] == 0o020600


def test_the_same_input_gives_the_same_bytes() -> None:
    assert build_initramfs(agent=b"a", modules=[]) == build_initramfs(agent=b"a", modules=[])
