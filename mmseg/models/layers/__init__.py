"""Plain modules shared by several models."""
