"""Imports other tools' conversations into any store: one reader for each tool, and shared parts."""
