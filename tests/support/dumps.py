"""Composefs dumps for tests: one for each boundary of the format, and random ones."""

import random
from collections.abc import Iterator
from typing import Any

ROOT = "/ 0 40755 2 0 0 0 0.0 - - -"
_DIGEST = "ab" * 32
_PRINTABLE = range(0x21, 0x7F)


def escape(text: bytes, *, special: bytes = b"\\") -> str:
    """A field of a dump."""
    shown = "".join(
        chr(byte) if byte in _PRINTABLE and byte not in special else f"\\x{byte:02x}"
        for byte in text
    )
    return "\\x2d" if shown == "-" else shown


def line(
    path: str,
    *,
    size: int | str = 0,
    mode: str = "100644",
    nlink: int | str = 1,
    uid: int | str = 0,
    gid: int | str = 0,
    rdev: int | str = 0,
    mtime: str = "0.0",
    payload: str = "-",
    content: str = "-",
    digest: str = "-",
    xattrs: str = "",
) -> str:
    """One line; `xattrs` is its raw text."""
    fields = (path, size, mode, nlink, uid, gid, rdev, mtime, payload, content, digest)
    return " ".join(map(str, fields)) + (f" {xattrs}" if xattrs else "")


def dump(*lines: str, root: str = ROOT) -> bytes:
    """A dump with a root and these lines."""
    return "\n".join((root, *lines, "")).encode("latin-1")


def external(path: str, size: int, number: int = 0, *, mtime: str = "0.0", xattrs: str = "") -> str:
    """A regular file in the object store."""
    digest = f"{number:064x}"
    return line(
        path,
        size=size,
        payload=f"{digest[:2]}/{digest[2:]}",
        digest=digest,
        mtime=mtime,
        xattrs=xattrs,
    )


def boundary_dumps() -> Iterator[tuple[str, bytes]]:
    """Dumps at and around every boundary of the format, by name."""
    yield "empty", dump()
    yield "no trailing newline", dump(line("/a"))[:-1]
    yield "escapes", dump(line("/a\\x20\\n\\t\\r\\\\b", payload="\\x2d", mode="120777"))
    yield "double slashes", dump(line("//d", mode="40755"), line("/d//f"))
    yield "odd numbers", dump(line("/a", nlink="+5", uid="-1", mtime="-5.7"))
    yield "clamped numbers", dump(line("/a", nlink=10**30, gid=f"-{10**30}"))
    yield "short lines", dump("/a 0 100644 1 0 0 0 0.0", "/b 0 100644 1 0 0 0 0.0 -")
    yield "high mode bits", dump(line("/a", mode="7100644"))
    yield from _inode_forms()
    yield from _sizes()
    yield from _symlinks()
    yield from _directories()
    yield from _xattrs()
    yield from _links_and_whiteouts()


def _inode_forms() -> Iterator[tuple[str, bytes]]:
    for number in (0, 65535, 65536, 0xFFFFFFFF):
        yield f"uid {number}", dump(line("/a", uid=number), line("/b", gid=number))
        yield f"nlink {number}", dump(line("/a", nlink=number))
    for mtime in ("0.1", "1.0", "18446744073709551615.999999999", "9223372036854775807.0"):
        yield f"mtime {mtime}", dump(line("/a", mtime=mtime))
    for mode, rdev in (("20644", 259), ("60600", 0xFFFFFFFF), ("20644", 1 << 32), ("10644", 5)):
        yield f"device {mode} {rdev}", dump(line("/a", mode=mode, rdev=rdev))
    yield "socket", dump(line("/a", mode="140755"))
    yield "device with size", dump(line("/a", mode="20644", rdev=1, size=1 << 33))
    yield "acl", dump(line("/a", xattrs="system.posix_acl_access=\\x02\\x00"))


def _sizes() -> Iterator[tuple[str, bytes]]:
    for size in (1, 4095, 4096, 4097, (1 << 32) - 1, 1 << 32, 1 << 43, (1 << 43) + 1, 1 << 53):
        yield f"external {size}", dump(external("/a", size), external("/b", size))
    for chunks in (999, 1000, 1008, 1016, 1017, 1020, 1023, 1024):
        files = [external(f"/f{i}", chunks << 43, i) for i in range(5)]
        yield f"external of {chunks} chunks", dump(*files)
    yield "external without digest", dump(line("/a", size=9), line("/b", size=9, payload="x/y"))
    for size in (1, 64, 2047, 2048, 2049, 4095, 4096, 4097, 4999, 5000):
        content = "i" * size
        yield (
            f"inline {size}",
            dump(*(line(f"/f{i}", size=size, content=content) for i in range(4))),
        )


def _symlinks() -> Iterator[tuple[str, bytes]]:
    for size in (1, 100, 2000, 4000, 4030, 4031, 4032, 4033, 4063, 4064, 4065, 4095):
        links = [line(f"/l{i}", mode="120777", payload="t" * size) for i in range(3)]
        yield f"symlink {size}", dump(*links, line("/m", mode="120777", payload="t", mtime="7.7"))
    yield (
        "symlink with size and xattr",
        dump(line("/l", mode="120777", payload="x" * 3900, size=7, xattrs="user.a=" + "v" * 120)),
    )


def _directories() -> Iterator[tuple[str, bytes]]:
    yield "names around the dots", dump(line("/!x"), line("/-x"), line("/.x"), line("/..x"))
    for count in (2, 100, 145, 146, 147, 148, 300):
        yield (
            f"directory of {count}",
            dump(line("/d", mode="40755"), *(line(f"/d/{i:014d}") for i in range(count))),
        )
    for last in (1, 2, 3, 200, 255):
        names = [f"{i}{'n' * 250}" for i in range(7)] + ["z" * last]
        yield (
            f"long names, last {last}",
            dump(line("/d", mode="40755"), *(line(f"/d/{name}") for name in names)),
        )
    deep = [line("/d" * depth, mode="40755", mtime=f"{depth}.0") for depth in range(1, 60)]
    yield "deep", dump(*deep)
    yield "stubs taken", dump(line("/00"), line("/ff", mode="40755"), line("/0a", mode="20644"))
    root = ROOT.replace(" 0 0 0 0.0", " 3 4 0 9.8") + " security.selinux=s trusted.overlay.opaque=n"
    yield "root with attributes", dump(line("/a"), root=root)


def _xattrs() -> Iterator[tuple[str, bytes]]:
    names = (
        "user.a",
        "trusted.b",
        "security.c",
        "lustre.d",
        "system.posix_acl_default",
        "e",
        "user.",
    )
    yield "prefixes", dump(*(line(f"/{i}", xattrs=f"{n}=v") for i, n in enumerate(names)))
    yield "shared", dump(*(line(f"/{i}", xattrs="user.a=1 user.b=2 user.c=3") for i in range(3)))
    yield (
        "shared and not",
        dump(
            line("/a", xattrs="user.k=v user.l=v user.m=" + "w" * 300),
            line("/b", xattrs="user.k=v user.l=x user.m="),
        ),
    )
    for count in (127, 128, 129, 200):
        many = " ".join(f"user.{i:03d}=v" for i in range(count))
        yield f"{count} shared", dump(line("/a", xattrs=many), line("/b", xattrs=many))
    yield "repeated key", dump(line("/a", xattrs="user.a=1 user.b=2 user.a=3"))
    yield (
        "overlay names",
        dump(
            line(
                "/a",
                xattrs="trusted.overlay.metacopy=x trusted.overlay.overlay.y=z user.overlay.a=b",
            )
        ),
    )
    yield "escaped in xattrs", dump(line("/a", xattrs="user.\\x3d\\x20=\\x00=\\xff"))
    for size in (2000, 4000, 8000, 32000):
        yield (
            f"xattr of {size}",
            dump(external("/a", 9, xattrs="user.a=" + "v" * size), line("/b", mtime="1.1")),
        )


def _links_and_whiteouts() -> Iterator[tuple[str, bytes]]:
    link = line("/z", mode="@100644", payload="/d/f", size="-", nlink="-", mtime="-")
    yield "hard link after", dump(line("/d", mode="40755"), external("/d/f", 70), link)
    yield (
        "hard link before",
        dump(
            line("/a", mode="@100644", payload="/d/f"),
            line("/d", mode="40755"),
            external("/d/f", 70),
        ),
    )
    yield (
        "hard link to hard link",
        dump(
            line("/a", mode="@100644", payload="/b"),
            line("/b", mode="@100644", payload="/c"),
            line("/c"),
        ),
    )
    yield (
        "hard link to symlink",
        dump(line("/a", mode="120777", payload="x"), line("/b", mode="@120777", payload="/a")),
    )
    yield "whiteout", dump(line("/d", mode="40755"), line("/d/w", mode="20644", size=7))
    yield "whiteout in root", dump(line("/w", mode="20600", uid=9))
    yield (
        "whiteout linked",
        dump(
            line("/d", mode="40755"),
            line("/d/w", mode="20644"),
            line("/l", mode="@20644", payload="/d/w"),
        ),
    )
    yield (
        "whiteout beside its marks",
        dump(
            line("/d", mode="40755", xattrs="user.overlay.whiteouts= user.overlay.opaque=y"),
            line("/d/w", mode="20644"),
        ),
    )


def malformed_dumps() -> Iterator[tuple[str, bytes]]:
    """Dumps that must be refused, by what is wrong with them."""
    yield "no bytes", b""
    yield "only a newline", b"\n"
    yield "an empty line", dump(line("/a"), "", line("/b"))
    yield "a NUL", dump(line("/a\0"))
    yield "no root first", b"/a 0 100644 1 0 0 0 0.0 - - -\n"
    yield "root is a file", b"/ 0 100644 1 0 0 0 0.0 - - -\n"
    yield "root is a hard link", b"/ 0 @100644 1 0 0 0 0.0 / - -\n"
    yield "two roots", dump(ROOT)
    yield "only a path", dump("/a")
    yield "few fields", dump("/a 0 100644 1")
    yield "double space", dump("/a  0 100644 1 0 0 0 0.0 - - -")
    for what, path in {
        "empty path": "",
        "path cut to nothing": "\\x00a",
        "relative path": "a",
        "dot": "/.",
        "dots": "/..",
        "dots inside": "/../a",
        "empty name": "//",
        "slash at the end": "/a/",
        "missing parent": "/missing/a",
        "long name": "/" + "n" * 256,
        "bad escape": "/a\\q",
        "cut escape": "/a\\x2",
        "lone backslash": "/a\\",
        "escape without digits": "/a\\xzz",
    }.items():
        yield what, dump(line(path))
    yield "parent is a file", dump(line("/a"), line("/a/b"))
    yield "duplicate", dump(line("/a"), line("/a"))
    yield (
        "duplicate of a hard link",
        dump(line("/a"), line("/b", mode="@100644", payload="/a"), line("/b")),
    )
    yield "child before parent", dump(line("/d/f"), line("/d", mode="40755"))
    for what, mode in {
        "no type": "644",
        "zero": "0",
        "decimal": "100648",
        "empty": "",
        "at": "@",
    }.items():
        yield f"mode: {what}", dump(line("/a", mode=mode))
    for field in ("size", "nlink", "uid", "gid", "rdev"):
        for value in ("x", "1x", "", "-", "1.5", "0x10", "1_0"):
            yield f"{field} {value!r}", dump(line("/a", **{field: value}))  # type: ignore[arg-type]  # names of fields
    # The C tool lets these pass: it looks at the owner again instead.
    yield "gid beside an owner", dump(line("/a", uid=1000, gid="x"))
    yield "rdev beside an owner", dump(line("/a", uid=1000, rdev="1x"))
    for value in ("", "1", "1.", ".1", "x.1", "1.x", "1,1", "1.1.1"):
        yield f"mtime {value!r}", dump(line("/a", mtime=value))
    yield "symlink without target", dump(line("/a", mode="120777"))
    yield "symlink with empty target", dump(line("/a", mode="120777", payload=""))
    yield "symlink with target cut to nothing", dump(line("/a", mode="120777", payload="\\x00x"))
    yield "long target", dump(line("/a", mode="120777", payload="t" * 4096))
    yield "long payload", dump(line("/a", size=9, payload="t" * 4096))
    yield "content of another size", dump(line("/a", size=4, content="abc"))
    yield "content without size", dump(line("/a", content="abc"))
    yield "big content", dump(line("/a", size=5001, content="c" * 5001))
    yield "too large", dump(line("/a", size=(1 << 53) + 1))
    yield "absurdly large", dump(line("/a", size=10**30))
    yield "as large as can be said", dump(line("/a", size="-1"))
    for what, digest in {
        "short": "ab",
        "long": "ab" * 33,
        "odd": "a" * 63,
        "not hexadecimal": "zz" * 32,
        "empty": "",
    }.items():
        yield f"digest: {what}", dump(line("/a", size=9, digest=digest))
    yield "digest: short, of a directory", dump(line("/a", mode="40755", digest="ab"))
    for what, target in {
        "missing": "/x",
        "itself": "/b",
        "directory": "/d",
        "root": "/",
        "unset": "-",
        "empty": "",
    }.items():
        yield (
            f"hard link target: {what}",
            dump(line("/d", mode="40755"), line("/b", mode="@100644", payload=target)),
        )
    yield "hard linked directory", dump(line("/b", mode="@40755", payload="/"))
    yield (
        "hard links in a circle",
        dump(line("/a", mode="@100644", payload="/b"), line("/b", mode="@100644", payload="/a")),
    )
    yield (
        "hard link into a circle",
        dump(
            line("/a", mode="@100644", payload="/b"),
            line("/b", mode="@100644", payload="/a"),
            line("/c", mode="@100644", payload="/a"),
        ),
    )
    for what, xattrs in {
        "no equals sign": "user.a",
        "empty key": "=v",
        "key cut to nothing": "\\x00k=v",
        "long key": "k" * 256 + "=v",
        "two spaces": "user.a=b  user.c=d",
        "bad escape": "user.a=\\q",
        "too much": " ".join(f"user.{i}={'v' * 8000}" for i in range(5)),
        "too long a value": "user.a=" + "v" * 33000,
        "too much text": " ".join(f"user.a{i}=" + "\\x61" * 800 for i in range(25)),
    }.items():
        yield f"xattr: {what}", dump(line("/a", xattrs=xattrs))


def random_dump(seed: int) -> bytes:
    """A dump of up to some hundred names with a bit of everything; equal for equal seeds."""
    return _RandomDump(random.Random(seed)).make()  # noqa: S311 - repeatable, not secret


class _RandomDump:
    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._directories = [""]
        self._files: list[str] = []
        self._taken = {""}
        self._keys = [escape(self._key(), special=b"\\=") for _ in range(8)]
        self._values = [
            escape(source.randbytes(self._pick(0, 1, 3, 100, 1500)), special=b"\\=")
            for _ in range(4)
        ]

    def make(self) -> bytes:
        root = line(
            "/", mode="40755", mtime=self._mtime(), uid=self._owner(), xattrs=self._xattrs()
        )
        lines = [one for _ in range(self._pick(0, 3, 30, 200)) for one in self._one()]
        return dump(*lines, root=root)

    def _pick(self, *choices: int) -> int:
        return self._random.choice(choices)

    def _key(self) -> bytes:
        prefix = self._random.choice(("user.", "trusted.", "security.", "trusted.overlay.", "k"))
        return (prefix + self._random.choice(("", "a", "selinux", "x" * 180))).encode()

    def _owner(self) -> int:
        return self._pick(0, 0, 0, 1000, 65536)

    def _mtime(self) -> str:
        return self._random.choice(("0.0", "0.0", "1.1", "1700000000.123456789"))

    def _xattrs(self) -> str:
        count = self._pick(0, 0, 0, 1, 2, 4)
        return " ".join(
            f"{self._random.choice(self._keys)}={self._random.choice(self._values)}"
            for _ in range(count)
        )

    def _path(self) -> str | None:
        alphabet = self._random.choice(("ab0f.-!~", "\x01\xff =\\-"))
        name = "".join(self._random.choices(alphabet, k=self._pick(1, 3, 8, 60, 255)))
        path = f"{self._random.choice(self._directories)}/{escape(name.encode('latin-1'))}"
        if name in (".", "..") or path in self._taken:
            return None
        self._taken.add(path)
        return path

    def _one(self) -> list[str]:
        path = self._path()
        if path is None:
            return []
        kind = self._random.choice(
            ("directory", "external", "external", "inline", "symlink", "link", "device")
        )
        if kind == "directory":
            self._directories.append(path)
            return [line(path, mode="40755", mtime=self._mtime(), xattrs=self._xattrs())]
        if kind == "link" and self._files:
            return [line(path, mode="@100644", payload=self._random.choice(self._files))]
        self._files.append(path)
        fields = self._fields(kind) | {"mtime": self._mtime(), "uid": self._owner()}
        return [line(path, **fields, xattrs=self._xattrs())]

    def _fields(self, kind: str) -> dict[str, Any]:
        if kind == "external":
            digest = f"{self._random.getrandbits(256):064x}"
            size = self._pick(65, 4096, 1 << 31, 1 << 33, 1020 << 43)
            return {"size": size, "payload": digest, "digest": digest}
        if kind == "inline":
            size = self._pick(1, 64, 2048, 2049, 5000)
            return {"size": size, "content": "c" * size}
        if kind == "symlink":
            return {"mode": "120777", "payload": "t" * self._pick(1, 90, 3000, 4050)}
        return {"mode": "20644", "rdev": self._pick(0, 259)}
