"""Whether a run could change the policy that it is under."""

from pathlib import Path

from services.core.run_plan import VolumeKind
from services.vm_runner.records.runs import Run
from services.vm_runner.storage.secret_names import is_policy


def writable_policy(run: Run) -> Path | None:
    """Returns the policy file of a run if one of its own binds lets it write there, else None.

    A file by the name of a project's policy at the top of a bind is not there for the guest.

    Looks at the file system.
    """
    if not run.options.policy_file:
        return None
    named = Path(run.options.policy_file)
    policy = named.resolve()
    for mount in run.plan.volumes:
        if mount.kind is not VolumeKind.BIND or mount.read_only:
            continue
        source = Path(mount.source).resolve()
        for place in {named, policy}:
            hidden = place.parent == source and is_policy(place.name.encode())
            if not hidden and (place == source or source in place.parents):
                return policy
    return None
