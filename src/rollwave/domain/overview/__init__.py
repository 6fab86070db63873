"""What operators need to see of a campaign, computed once for all who look: pure rules, in words for people."""
