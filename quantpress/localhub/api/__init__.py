"""The Hub's HTTP API, one module for each topic."""
