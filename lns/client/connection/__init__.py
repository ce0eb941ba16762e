"""Where the services are, and channels to them: the suite of this machine, or endpoints."""
