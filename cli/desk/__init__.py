"""The front desk: a process that has everything imported and runs commands of `lns` in its forks.

Importing gRPC and what else a command needs takes longer than most commands. Mercurial's `chg` is
the model: the launcher passes arguments, directory, environment and descriptors on, and stays as
the command's shadow in the user's session; `docs/desk.md` has the whole of it.
"""
