"""Views: what a store holds, as DataFrames. Each function stands in the file of what it shows."""
