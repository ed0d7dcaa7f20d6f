"""Tests of Anchorline."""
