"""QEMU as a hypervisor: its command line, its processes, its control socket."""
