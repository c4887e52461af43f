import KVModel
