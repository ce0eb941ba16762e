"""How results, progress and plans look; nothing here talks to a service."""
