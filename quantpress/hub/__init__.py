"""The Hub: the client, its patience, and a Hub's limits."""
