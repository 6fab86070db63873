"""Work for a campaign as a whole: targeting, waves, deadlines, adoption, counters, completion."""
