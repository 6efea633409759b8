"""What is written down: manifest, recipe, measurement, verification, and the names of files and repositories."""
