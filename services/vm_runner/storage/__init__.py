"""What a run has of the host's disks: named volumes, and binds of files and folders."""
