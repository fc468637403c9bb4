"""Stores: siblings behind one protocol, each imports only ``base`` and what it keeps things in."""
