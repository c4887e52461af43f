// The log of a server of HTTP, less its own end: where it is cancelled once the service has drained, it would call that an error.

import Logging

/// Hands on what is logged, but for tasks that are cancelled.
public struct HTTPLogHandler: LogHandler {
    private var inner: any LogHandler

    /// Hands on to another.
    public init(_ inner: any LogHandler) { self.inner = inner }

    /// As the other has it.
    public var metadata: Logger.Metadata {
        get { inner.metadata }
        set { inner.metadata = newValue }
    }

    /// As the other has it.
    public var logLevel: Logger.Level {
        get { inner.logLevel }
        set { inner.logLevel = newValue }
    }

    /// As the other has it.
    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { inner[metadataKey: key] }
        set { inner[metadataKey: key] = newValue }
    }

    /// Hands on what a task that goes on has to say.
    public func log(event: LogEvent) {
        guard !Task.isCancelled else { return }
        inner.log(event: event)
    }
}
