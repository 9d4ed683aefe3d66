"""Reads ReelKV stores without the Swift library: the second implementation of schema/FORMAT.md.

It is written for clarity, from the format document alone, so that a store can be checked by code that shares nothing with
the code that wrote it. It never writes.
"""
