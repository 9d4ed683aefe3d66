"""Tests of the binding."""
