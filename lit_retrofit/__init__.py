"""Turns a small multilingual embedding model into a strong retriever."""
