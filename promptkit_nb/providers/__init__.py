"""Providers, which share one protocol; each imports only ``base`` and the modules for its server."""
