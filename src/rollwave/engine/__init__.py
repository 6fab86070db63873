"""Runs campaigns: sends commands, applies reports, enforces deadlines, and completes or stops campaigns."""
