"""Request -> response."""
