"""The contents of a store as DataFrames, charts and a dashboard."""
