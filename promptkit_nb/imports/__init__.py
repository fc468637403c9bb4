"""Other tools' conversations, read into any store: one file for each tool, and what they share."""
