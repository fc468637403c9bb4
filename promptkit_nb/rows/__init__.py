"""A prompt over the rows of a DataFrame: ``ask_rows`` and ``df.promptkit.ask``; nothing else needs this package."""
