"""The notebook's side: magics, cells and their session."""
