"""Stores: one protocol, one implementation over rows, and a backend for each kind of storage."""
