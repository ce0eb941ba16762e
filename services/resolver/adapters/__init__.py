"""What the resolver reaches the world with."""
