"""Upkeep of published repositories: withdraws a variant, or makes a variant again from its manifest."""
