"""Servers that run inside this machine and die with their owner: for the demo and the tests."""
