"""Starts that boot no kernel: snapshots of images, and machines that were resumed ahead."""
