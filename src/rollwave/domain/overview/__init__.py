"""What operators need to see of a campaign, computed once: the page, the terminal and the list only draw it."""
