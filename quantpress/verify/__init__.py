"""Verification: downloads again what the Hub serves, hashes it, loads it and lets it write."""
