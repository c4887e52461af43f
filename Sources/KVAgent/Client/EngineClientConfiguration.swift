// Where an engine's client finds its agent, who it says that it is, and how long it waits for what.

import KVModel

/// Where the agent is and who asks.
public struct EngineClientConfiguration: Sendable {
    /// The agent's socket.
    public var path: String
    /// Who the engine is; its process is the kernel's to say.
    public var hello: EngineHello
    /// Its name and version, for the agent's logs.
    public var client = "holdfast"
    /// Whether it wants to hear of blocks that come and go.
    public var isSubscriber = false
    /// How it maps the agent's arena; needs a hello of a host-owned engine.
    public var arena = EngineArenaAccess.none
    /// How long a look-up may take; then it is a miss.
    public var lookUpLimit = Duration(milliseconds: 50)
    /// How long who waits for the answer to a look-up, or for a lease, stays awake (`answer`), where that pays; zero: not at all.
    public var watch = Duration(nanoseconds: 100_000)
    /// How long a load or save may take unless its caller says otherwise; then it is cancelled.
    public var jobLimit = Duration(seconds: 5)
    /// From hello to welcome.
    public var helloLimit = Duration(seconds: 10)
    /// Before the second try to connect again, the first is made at once; doubles up to `backoffMax`, and begins anew behind
    /// a connection that lived as long.
    public var backoff = Duration(milliseconds: 100)
    /// The longest pause between tries.
    public var backoffMax = Duration(seconds: 10)
    /// How long there must be no socket before its agent is believed to have ended: a living one makes a socket that was
    /// removed anew within a second.
    public var absenceLimit = Duration(seconds: 3)
    /// Bytes of frames that may wait for the agent to read them; beyond it everything is a miss.
    public var queueBytesMax = 8 << 20

    /// A client of an agent, with the defaults.
    public init(path: String, hello: EngineHello) {
        self.path = path
        self.hello = hello
    }
}
