"""Training records out of documents, or out of nothing: templates, generators, filters."""
