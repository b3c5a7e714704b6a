"""What is in the data: counts, lengths, duplicates, similarities, and records to read."""
