"""Small working stand-ins for what lies behind a port."""
