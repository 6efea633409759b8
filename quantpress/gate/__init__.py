"""The gate: what a variant must be to be published, and the limit for each rung."""
