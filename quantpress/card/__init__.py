"""The model card: what a repository's README.md says, made from its manifest."""
