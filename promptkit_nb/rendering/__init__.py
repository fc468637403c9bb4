"""What people read: sanitized HTML from Markdown, answers, histories, trees, widget pages."""
