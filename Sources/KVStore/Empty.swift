// KVStore: filled in next.
