"""The reference device agent: what a device does with a command, and how it reports."""
