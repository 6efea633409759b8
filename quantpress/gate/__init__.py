"""The gate: the checks that a variant must pass to be published, and the limit for each rung."""
