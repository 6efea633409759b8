"""Makes the files that the Hub uses to serve a GGUF repo to Ollama."""
