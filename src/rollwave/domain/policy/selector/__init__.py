"""Selectors: text that says which devices are meant, such as ``ring == canary and not has(bench)``."""
