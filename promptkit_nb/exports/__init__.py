"""Conversations as files: to import again, or to read."""
