"""The context window: counting tokens, and choosing what a request carries."""
