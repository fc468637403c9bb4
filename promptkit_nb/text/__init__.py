"""Text that several layers share: counts and previews, receipts, tables, near matches."""
