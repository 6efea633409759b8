"""The source: a model's upstream repository, looked up, checked and fetched. Nothing in it is trusted."""
