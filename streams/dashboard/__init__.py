"""What readers see: pages and an API over published figures, and nothing else of either store."""
