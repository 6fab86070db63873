"""What moves a campaign on beside its devices: targeting, gates, deadlines, adoption, honest counters."""
