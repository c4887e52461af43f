import KVReport
import Testing
