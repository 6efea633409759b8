"""What formats share whose variants are whole checkpoints."""
