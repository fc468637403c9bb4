"""Text that several layers share: counts and previews, receipts, near matches."""
