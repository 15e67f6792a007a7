"""`python -m durable_flow.cli`: the command line where its script is not on the path."""

from __future__ import annotations

import sys

from . import main

sys.exit(main())
