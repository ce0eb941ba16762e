"""What vm_runner reaches the outside through: QEMU, files, the guest, the materializer."""
