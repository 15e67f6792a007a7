"""Journals of earlier releases, which every later one reads and goes on with."""
