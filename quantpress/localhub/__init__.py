"""The embedded Hub: the Hub's HTTP API over a folder and SQLite."""
