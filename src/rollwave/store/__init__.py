"""The only access to PostgreSQL."""
