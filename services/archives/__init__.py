"""The one reader of foreign tar archives, bounded; layers, copies out of runs and images use it."""
