"""Upkeep of what is published: withdrawing a variant, and making one again from its manifest."""
