"""The engine: loop, effects, claims and recovery. Sees the JournalStore protocol, no SQL."""
