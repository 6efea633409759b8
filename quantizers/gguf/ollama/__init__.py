"""The files beside a GGUF with which the Hub serves it to Ollama."""
