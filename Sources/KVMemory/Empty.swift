// KVMemory: filled in next.
