"""What quantpress writes down: manifests, recipes, measurements, verifications, and the names of files and
repositories.
"""
