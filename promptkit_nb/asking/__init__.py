"""Asking the model within a conversation, from the question to the stored turn."""
