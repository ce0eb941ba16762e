"""Serves one directory of the host to one guest: FUSE messages over a virtio port, one process."""
