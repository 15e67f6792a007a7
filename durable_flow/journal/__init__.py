"""Where journals are kept: the storage protocol, its stores, and `Journal` in front of them."""
