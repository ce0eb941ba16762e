"""Pure decisions about what a run may reach: used by runner, worker, command line and audit log."""
