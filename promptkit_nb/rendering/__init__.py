"""What people read: sanitised HTML, plain text, receipts, histories, transcripts."""
