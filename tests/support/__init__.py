"""What tests of several tiers share: real registries, prerequisites."""
