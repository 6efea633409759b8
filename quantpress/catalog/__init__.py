"""The catalog: what should be published, and what is said of each mistake in it."""
