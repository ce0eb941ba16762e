"""One module a group of commands; `cli.catalogue` imports each only when it is called."""
