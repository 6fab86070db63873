"""Everything about a campaign that no report starts: targeting, waves, deadlines, adoption, counters, completion."""
