"""What every component does to stay a member: keys, trust, catch-up, renewal, acknowledgement."""
