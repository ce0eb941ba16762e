"""What is recorded of runs: values, names, groups, states, logs, and the register of them all."""
