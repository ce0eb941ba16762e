"""gRPC's own log lines, which its C core writes to standard error past every configuration."""

from collections.abc import MutableMapping


def hide_grpc_lines(environment: MutableMapping[str, str]) -> None:
    """Keeps them out of terminals and logs, unless the operator has chosen their verbosity.

    They repeat, without form and context, what the errors of lns say. gRPC reads the variable when
    it is imported, so this comes before that. Child processes inherit it.

    Args:
        environment: the variables of this process.
    """
    environment.setdefault("GRPC_VERBOSITY", "NONE")
