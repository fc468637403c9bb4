"""Conversations as files: archives to import again, transcripts to read."""
