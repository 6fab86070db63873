"""The wire: topics, payloads, and one session with a broker."""
