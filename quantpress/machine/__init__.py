"""The machine: child processes, folders of work in progress, memory, GPUs, and credentials that stay here."""
