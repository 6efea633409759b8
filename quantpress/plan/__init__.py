"""The plan: catalog minus manifests, a list of steps each with its reason."""
