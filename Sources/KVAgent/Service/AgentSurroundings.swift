// What an agent is given beside its settings by the command that starts it.

import KVModel
import KVTiering

/// What an agent needs that its settings only name: read by the command, which knows where such things lie.
public struct AgentSurroundings: Sendable {
    /// The tenant's key at the store.
    public var storeSecret: [UInt8] = []
    /// What the planner is told of paths until bytes have moved.
    public var links: LinkView
    /// The program, for engines' logs.
    public var program = "holdfast"
    /// Whose request traces they are, and what its clock said; nil: as if it were 1970.
    package var traceResource: TraceResource?
    /// Makes the device in place of the one that the settings name: tests put a faulty one there.
    package var device: DeviceAccess?

    /// Surroundings in which paths look as given.
    public init(links: LinkView) { self.links = links }
}
