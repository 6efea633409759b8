"""Publishing: commits to a repository, gates the repository, and adds it to a collection on the Hub."""
