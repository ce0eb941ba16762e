"""Turns OCI layers and mounted artifacts into composefs images, and keeps the image store."""
