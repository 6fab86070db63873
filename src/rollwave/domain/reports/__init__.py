"""Reports of devices: read, put together, limited, and what each of them came to."""
