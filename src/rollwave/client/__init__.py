"""What a program that operates campaigns needs: the HTTP API from outside, and a campaign made readable."""
