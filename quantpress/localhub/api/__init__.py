"""The Hub's HTTP API, by topic."""
