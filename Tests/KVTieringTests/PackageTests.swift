import KVTiering
import Testing
