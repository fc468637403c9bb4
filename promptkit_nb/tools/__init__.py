"""Tools: Python functions that a model may call, and the results that it receives."""
