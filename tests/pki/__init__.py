"""Tests of pki: pure, one file a module."""
