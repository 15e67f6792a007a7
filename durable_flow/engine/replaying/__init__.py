"""Replay: recorded history is run against today's code of the steps, and what they do is held against the records."""
