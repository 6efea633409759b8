"""The two formats of ExLlama: ``exl3`` and ``exl2``."""
