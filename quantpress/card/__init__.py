"""The model card: a repository's README.md, made from the repository's manifest."""
