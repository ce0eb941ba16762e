"""What a tree becomes before it is laid out, so that overlayfs finds the content of its files.

The image is mounted as the top lower layer of an overlay; its external files carry attributes that
point into the object store. Attributes and whiteouts that the tree itself has for overlayfs are
escaped, so that they show up unchanged in the mounted tree.
"""

import functools
import stat
from collections.abc import Iterable

from services.materializer.composefs.tree import Inode
from services.materializer.composefs.verity import DIGEST_BYTES
from services.materializer.composefs.xattrs import Area, Pair, Pattern

_PREFIX = b"trusted.overlay."
_ESCAPED = b"trusted.overlay.overlay."
_METACOPY = b"trusted.overlay.metacopy"
_REDIRECT = b"trusted.overlay.redirect"
_OPAQUE_ROOT = {b"trusted.overlay.opaque": b"y"}
_METACOPY_HEADER = b"\x00\x24\x00\x01"  # version 0, 36 bytes, no flags, SHA-256
_WHITEOUT = {_ESCAPED + b"whiteout": b"", b"user.overlay.whiteout": b""}
_WHITEOUTS_WITHIN = {_ESCAPED + b"whiteouts": b"", b"user.overlay.whiteouts": b""}
_OPAQUE_WITHIN = {_ESCAPED + b"opaque": b"x", b"user.overlay.opaque": b"x"}
_SELINUX = b"security.selinux"
_STUB_MODE = stat.S_IFCHR | 0o644


def external_xattrs(inode: Inode) -> list[Pair]:
    """What the image adds to an external regular file: where its content is, and its digest."""
    metacopy = (_METACOPY, _METACOPY_HEADER + inode.digest if inode.digest else b"")
    return [metacopy, (_REDIRECT, b"/" + inode.payload)] if inode.payload else [metacopy]


def lone_area(digest: bytes, payload: bytes) -> Area:
    """The area of an external file with no attributes but those of `external_xattrs`, unshared."""
    pattern = _lone_pattern(len(payload))
    return pattern.area(_METACOPY_HEADER + digest, b"/" + payload)


@functools.cache
def _lone_pattern(payload_bytes: int) -> Pattern:
    metacopy_bytes = len(_METACOPY_HEADER) + DIGEST_BYTES
    return Pattern(((_METACOPY, metacopy_bytes), (_REDIRECT, payload_bytes + 1)))


def overlay_xattrs(
    inode: Inode, *, version: int, is_root: bool, is_whiteout: bool, holds_whiteouts: bool
) -> list[Pair]:
    """The attributes of an inode in the image, sorted by name."""
    xattrs = {
        _ESCAPED + key[len(_PREFIX) :] if key.startswith(_PREFIX) else key: value
        for key, value in inode.xattrs.items()
    }
    if inode.is_external:
        xattrs.update(external_xattrs(inode))
    if is_whiteout:
        xattrs.update(_WHITEOUT)
    if holds_whiteouts:
        xattrs.update(_WHITEOUTS_WITHIN)
        if version >= 1:
            xattrs.update(_OPAQUE_WITHIN)
    if is_root:
        xattrs.update(_OPAQUE_ROOT)
    return sorted(xattrs.items())


def whiteout_stubs(root: Inode, taken: Iterable[bytes]) -> dict[bytes, Inode]:
    """The whiteouts `00` to `ff` in the root that hide an object store's own directories."""
    selinux = root.xattrs.get(_SELINUX)
    stub = Inode(_STUB_MODE, root.uid, root.gid, root.mtime, root.mtime_nsec)
    if selinux is not None:
        stub.xattrs = {_SELINUX: selinux}
    names = {b"%02x" % number for number in range(256)}
    return dict.fromkeys(names.difference(taken), stub)
