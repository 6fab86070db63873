"""What operators need to see of a campaign, computed once from plain data. Pages, lists and terminals draw it."""
