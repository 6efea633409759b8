"""The Hub: the client, its patience, and what a Hub allows."""
