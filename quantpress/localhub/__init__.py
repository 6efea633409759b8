"""The embedded Hub: it serves the HTTP API of the Hugging Face Hub from a folder and a SQLite database."""
