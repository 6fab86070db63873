"""Reports of devices: reading them, limiting repetitions, and the outcome of each."""
