"""The catalog: what should be published, and an error message for each mistake in it."""
