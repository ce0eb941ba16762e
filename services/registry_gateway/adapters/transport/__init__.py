"""HTTP to one origin: connections, TLS, time, what may be read and where it may go."""
