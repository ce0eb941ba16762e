"""What guests boot from: a kernel of the distribution, and an initial file system made for it."""
