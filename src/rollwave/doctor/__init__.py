"""Looking at an installation: what is wrong with it, and how to mend that."""
