"""Rules that campaigns under a policy document must keep in every snapshot, by code of its own.

Nothing here imports the engine's rules: documents are read as plain JSON.
"""
