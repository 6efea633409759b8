"""The source: a model's repository upstream, looked up, checked and fetched; nothing in it is trusted."""
