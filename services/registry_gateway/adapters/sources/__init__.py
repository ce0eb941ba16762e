"""Images that come from this machine: archives, layouts, the Docker daemon."""
