"""Verification: what the Hub serves, downloaded anew, hashed, loaded and made to speak."""
