"""A worker process, and the same work in a host's process: which campaign is looked at, and when."""
