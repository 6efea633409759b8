"""The files beside a GGUF by which the Hub serves it to Ollama."""
