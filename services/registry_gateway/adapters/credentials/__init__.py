"""What a registry is shown: where logins are kept, challenges, tokens, device logins."""
