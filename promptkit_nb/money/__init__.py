"""Money: what calls cost, may cost, and may not."""
