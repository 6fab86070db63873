"""MQTT: topics, payloads, and sessions with a broker."""
