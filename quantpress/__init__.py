"""quantpress: quantize, measure and publish every model of a catalog."""

__version__ = "0.1.0"
