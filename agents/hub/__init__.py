"""The hub: the one way between servers and the zone servers of the DMZ. It dials both."""
