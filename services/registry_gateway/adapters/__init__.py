"""What the gateway stands on: registries over HTTP, the disk, SQLite, credential stores."""
