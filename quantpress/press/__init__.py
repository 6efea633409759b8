"""The press: the stages that make variants of a model from its source, and publish them."""
