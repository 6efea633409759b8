"""The gate: the checks that a variant must pass before it is published, and the limit for each variant."""
