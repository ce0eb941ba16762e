"""What is kept on the disk of this machine: blobs, their index, sessions of uploads."""
