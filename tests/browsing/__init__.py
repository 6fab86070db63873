"""For tests in a real browser: an installation with tenants, simulated devices, and tabs that notice faults."""
