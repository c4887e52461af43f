import KVTrace
import Testing
