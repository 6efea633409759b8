"""The source is a model's upstream repository. This package looks it up, checks it and downloads it, and trusts nothing
in it.
"""
