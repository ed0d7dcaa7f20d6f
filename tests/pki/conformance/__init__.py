"""A second verifier, written from the specification alone, and the first one held against it."""
