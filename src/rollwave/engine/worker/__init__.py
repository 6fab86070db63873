"""The worker process, and the same work in a host's process: decides which campaign is looked at, and when."""
