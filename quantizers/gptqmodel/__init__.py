"""What runs GPTQModel, the library that makes the formats ``gptq`` and ``awq``."""
