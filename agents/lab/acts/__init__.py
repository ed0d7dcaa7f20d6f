"""The acts of the lab's story, in their order."""
