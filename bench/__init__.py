"""How fast Rollwave is on this machine, beside what the machine could do at best. Run it with ``make bench``."""
