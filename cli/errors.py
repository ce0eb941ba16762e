"""Failures as users see them: one line what, one line why, one line what to do.

Nothing here imports gRPC: errors arrive typed from `services.chassis`.
"""

import errno
import traceback
from collections.abc import Mapping

import click

from cli.context import Context
from cli.render.text import printable
from cli.suggestions import suggestion
from services.core.errors import LnsError, Violation

_REGISTRY_LOGIN = "log in with `lns login REGISTRY`"
_WAYS_OUT: Mapping[str, str] = {
    "REFERENCE_INVALID": "write host[:port]/path[:tag][@sha256:…]",
    "DIGEST_INVALID": "write sha256: and 64, or sha512: and 128 lower-case hexadecimal digits",
    "ARTIFACT_INVALID": "correct the document; `lns types FAMILY` prints the schema",
    "REQUEST_INVALID": "correct the value that is named above",
    "DIGEST_MISMATCH": "try again; if it fails again, the source is being changed",
    "SETTINGS_INVALID": "correct the setting; docs/configuration.md lists every one",
    "MANIFEST_UNKNOWN": "check the reference: the registry has no such tag or digest",
    "BLOB_UNKNOWN": "pull the reference again with `lns pull`",
    "RUN_UNKNOWN": "`lns ps -a` lists every run",
    "IMAGE_UNKNOWN": "`lns image ls` lists what the store has",
    "VOLUME_UNKNOWN": "`lns volume ls` lists every volume",
    "SNAPSHOT_UNKNOWN": "`lns snapshot ls` lists every snapshot",
    "LEASE_UNKNOWN": "try again",
    "APPROVAL_UNKNOWN": "`lns approvals list` lists what waits for an answer",
    "EXEC_UNKNOWN": "the command has ended; start it again",
    "ARTIFACT_TYPE_UNSUPPORTED": "`lns inspect REF` says what a reference names",
    "PLATFORM_UNSUPPORTED": "choose another with --platform; `lns inspect REF` lists them",
    "PLAN_INVALID": "correct each problem, push again, and look with `lns resolve REF`",
    "LAYER_UNSAFE": "do not run this image; report it to its builder",
    "LAYER_UNSUPPORTED": "build the image with gzip, zstd or plain tar layers",
    "RUN_NOT_SNAPSHOTTABLE": "docs/snapshots.md says what a snapshot of a run can have",
    "RUN_NOT_SUSPENDABLE": "`lns pause` holds a run in memory",
    "SAVED_MACHINE_UNUSABLE": "`lns stop`, then `lns start` boots the run again; its disk is kept",
    "RUN_STATE_CONFLICT": "`lns ps -a` shows the state of every run",
    "BLOBS_MISSING": "pull the reference again with `lns pull`",
    "HOST_UNREADY": "`lns doctor` says what is missing and how to get it",
    "NAME_TAKEN": "choose another name, or remove what has it",
    "IN_USE": "stop whatever uses it, then try again",
    "CAPACITY_EXHAUSTED": "free space: `lns prune`, `lns image prune`",
    "TOO_MANY_REQUESTS": "wait a moment and try again",
    "ATTACH_LAGGING": "attach again: `lns logs RUN` has what was missed",
    "LIMIT_EXCEEDED": "reduce its size, or raise the limit in the settings (docs/configuration.md)",
    "REGISTRY_UNAVAILABLE": "check the registry's name, and that it runs and can be reached",
    "SERVICE_UNAVAILABLE": "look with `lns service status` and `lns service logs`",
    "GUEST_UNREACHABLE": "`lns logs RUN` may say why; `lns restart RUN` starts it again",
    "DEADLINE_EXCEEDED": "try again; `lns service status` shows whether the services answer",
    "REGISTRY_UNAUTHENTICATED": _REGISTRY_LOGIN,
    "REGISTRY_DENIED": "ask the registry's owner for access, or log in as another user",
    "CALLER_DENIED": "ask the operator of the services for access",
    "CONTENT_CORRUPT": "`lns image verify REF --repair` checks what is stored",
    "CONFLICT": "try again",
    "UNIMPLEMENTED": "the README's table says what this version does",
    "INTERNAL": "this is a defect of lns: please report it with `lns service logs`",
    "VM_FAILED": "`lns doctor` checks this machine; `lns logs RUN` may say more",
    "CREDENTIAL_UNUSABLE": "connect it anew: `lns connect ID`",
    "REGISTRY_PROTOCOL": "report it to the publisher; another tag or an older one may work",
}


def way_out(error: LnsError) -> str:
    """Returns what to do about an error: its own hint, else that of its reason."""
    return error.hint or _WAYS_OUT.get(error.reason, "run it again with --debug for details")


def describe(error: Exception, context: Context) -> list[str]:
    """Returns the lines that an error is shown as: what, why, what to do."""
    if isinstance(error, LnsError):
        return _describe_lns_error(error, context)
    if isinstance(error, OSError):
        return _describe_os_error(error, context)
    return _describe_defect(error, context)


def describe_usage(error: click.ClickException) -> list[str]:
    """Returns the lines for a command line that is not one, as `describe` does."""
    usage = error.ctx if isinstance(error, click.UsageError) else None
    why = error.format_message()
    meant = ""
    if usage is not None and isinstance(error, click.exceptions.NoSuchCommand):
        why = f"{usage.command_path} has no command {error.command_name!r}"
        if isinstance(usage.command, click.Group):
            known = usage.command.list_commands(usage)
            meant = suggestion(error.command_name, known, path=usage.command_path)
    lines = [
        "lns: cannot understand the command line",
        f"  why: {printable(why).removesuffix('.')}",
    ]
    if meant:
        lines.append(f"  try: {meant}")
    elif usage is not None:
        usage_line = " ".join(usage.command.collect_usage_pieces(usage))
        lines.append(
            f"  try: {usage.command_path} {usage_line}; `{usage.command_path} --help` explains it"
        )
    return lines


def _describe_lns_error(error: LnsError, context: Context) -> list[str]:
    what = f"cannot {context.doing}" if context.doing else "the command failed"
    lines = [f"lns: {printable(what)}", f"  why: {printable(error.message)}"]
    for number, violation in enumerate(error.violations):
        subject = f"{violation.subject}: " if violation.subject else ""
        if _is_said(error, violation, is_first=number == 0):
            continue
        lines.append(f"    - {printable(subject + violation.description)}")
    lines.append(f"  try: {printable(way_out(error))}")
    if context.debug:
        lines += _everything(error, context)
    return lines


def _is_said(error: LnsError, violation: Violation, *, is_first: bool) -> bool:
    """Says whether the reason is this very problem; others may read the same of another part."""
    if not is_first or violation.description not in error.message:
        return False
    return len(error.violations) == 1 or violation.subject in error.message


def _describe_os_error(error: OSError, context: Context) -> list[str]:
    what = f"cannot {context.doing}" if context.doing else "the command failed"
    where = f"{error.filename}: " if error.filename else ""
    lines = [
        f"lns: {printable(what)}",
        f"  why: {printable(f'{where}{error.strerror or error}')}",
        f"  try: {_OS_WAYS_OUT.get(error.errno or 0, 'run it again with --debug for details')}",
    ]
    if context.debug:
        lines += _trace(error)
    return lines


def _describe_defect(error: BaseException, context: Context) -> list[str]:
    lines = [
        "lns: an unexpected failure; this is a defect of lns",
        f"  why: {type(error).__name__}: {printable(str(error))}",
        "  try: run it again with --debug, and report what it shows",
    ]
    if context.debug:
        lines += _trace(error)
    return lines


_OS_WAYS_OUT: Mapping[int, str] = {
    errno.ENOENT: "check the path",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "check the path",
    errno.ENOSPC: "free some disk space",
    errno.EROFS: "choose a directory that can be written",
}


def _everything(error: LnsError, context: Context) -> list[str]:
    lines = [f"  reason: {error.reason} ({error.kind})"]
    for key, value in sorted(error.metadata.items()):
        first, *others = value.split("\n")
        lines += [f"  {key}: {printable(first)}", *(f"    {printable(line)}" for line in others)]
    if error.retry_after is not None:
        lines.append(f"  retry after: {error.retry_after:g} s")
    if context.request_id:
        lines.append(f"  request id: {context.request_id}")
    return lines + _trace(error)


def _trace(error: BaseException) -> list[str]:
    trace = "".join(traceback.format_exception(error)).rstrip()
    return [printable(line) for line in trace.split("\n")]
