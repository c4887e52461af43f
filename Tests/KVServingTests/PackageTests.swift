import KVServing
import Testing
