import KVSimulation
import Testing
