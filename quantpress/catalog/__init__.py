"""The catalog: the file that says what to publish, and the errors that explain every mistake in that file."""
