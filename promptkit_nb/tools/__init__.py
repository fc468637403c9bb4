"""Tools: Python functions that a model may call, and what it is told of their results."""
