"""Where credentials and integrations are kept, and how their values are had."""
