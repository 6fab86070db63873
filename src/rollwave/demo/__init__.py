"""The demo: one good and one bad release, with real servers and a simulated fleet on one machine."""
