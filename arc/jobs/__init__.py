"""Jobs: documents, states, store, coordinator, workers."""
