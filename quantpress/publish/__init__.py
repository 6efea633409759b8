"""Publishing: commits to a repository, access to it, and the collection that holds it."""
