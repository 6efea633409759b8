"""The press: the stages from a source to what a commit holds."""
