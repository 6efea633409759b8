"""The machine that quantpress runs on: child processes, work folders, memory and GPUs. This package also keeps
credentials from other processes."""
