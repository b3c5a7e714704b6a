"""Mining: the exact search of a corpus on disk, and the whole against sentence-transformers' miner."""
