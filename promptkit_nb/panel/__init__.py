"""The chat panel: a widget, the thread that works for it, and what both show of a conversation."""
