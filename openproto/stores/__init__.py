"""Parts from which a store is built: ranking, words, cursors, indexing, and the audit buffer."""
