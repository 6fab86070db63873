"""Taking reports in: from the broker's session to the commit, and only then the acknowledgement."""
