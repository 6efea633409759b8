"""GPTQModel, the library behind ``gptq`` and ``awq``."""
