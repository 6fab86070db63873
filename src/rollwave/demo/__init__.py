"""The demo: real servers, a real engine and a simulated fleet on one machine, and a story that they play."""
