"""The workflow of `orders` as a plain script: whoever kills it runs the same line again, and it goes on.

The environment says where the journal is, and when it dies: ORDERS_DEATH is a part of a Life, as JSON. Notes are made
in the current folder.
"""

from __future__ import annotations

import asyncio
import json
import os

from .life import life_of, live
from .runs import ALONE, LAPS

if __name__ == "__main__":
    death = json.loads(os.environ.get("ORDERS_DEATH", "{}"))
    url = os.environ["DURABLE_FLOW_DATABASE_URL"]
    asyncio.run(live(life_of({"folder": ".", "url": url, "runs": ALONE, "laps": LAPS, **death})))
