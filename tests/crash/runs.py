"""Which runs the histories have, and at what moments their processes are killed."""

from __future__ import annotations

ALONE = ["alone"]
EIGHT = [f"run-{number}" for number in range(8)]
# A run alone is long enough for many appends.
LAPS = 14

# Lines of the notes, one after another in the life of a run, so that each process comes to its moment.
MOMENTS = [
    ["begin Ordered:0", "price Part:1", "call quote:2"],
    ["join Priced:2", "pack Packed:0"],
    ["deliver Approved:0", "lap Lap:1", "ship Ready:0"],
    ["load Loaded:3", "stow Stowed:1", "stow Stowed:3"],
    ["print_label Label:2", "bundle bundle:0", "finish finish:0"],
]
