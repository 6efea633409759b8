"""Verifies published repos: downloads the files again, hashes them, loads the models and lets the models write."""
