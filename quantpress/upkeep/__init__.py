"""Upkeep of published repositories: withdraws a variant, or makes one again from its manifest."""
