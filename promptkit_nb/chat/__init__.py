"""Calls of a model in a conversation, from the options of a call to the stored turn."""
