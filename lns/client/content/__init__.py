"""Files of this machine on their way into the gateway's store."""
