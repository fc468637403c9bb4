"""Providers: siblings behind one protocol; each imports only ``base`` and what it needs to reach its server."""
