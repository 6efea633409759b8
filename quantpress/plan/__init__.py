"""The plan: what the catalog asks for and the published manifests do not show yet. It lists steps, each with its
reason."""
