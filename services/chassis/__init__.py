"""What every lns process stands on: serve, connect, configure, log, measure, map errors."""
