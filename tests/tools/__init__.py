"""Tests of the checks of the repository."""
