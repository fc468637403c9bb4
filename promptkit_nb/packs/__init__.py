"""PromptPacks: read, checked, explained, and turned into system prompts."""
