"""The policy document: reading its text, checking its keys, and saying what is wrong with it."""
