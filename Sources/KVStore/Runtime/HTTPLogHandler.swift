// The log of a server of HTTP, less its own end: it is cancelled once the store has drained, and would call that an error.

import Logging

/// Hands on what is logged, but for tasks that are cancelled.
struct HTTPLogHandler: LogHandler {
    private var inner: any LogHandler

    /// Hands on to another.
    init(_ inner: any LogHandler) { self.inner = inner }

    var metadata: Logger.Metadata {
        get { inner.metadata }
        set { inner.metadata = newValue }
    }

    var logLevel: Logger.Level {
        get { inner.logLevel }
        set { inner.logLevel = newValue }
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { inner[metadataKey: key] }
        set { inner[metadataKey: key] = newValue }
    }

    func log(event: LogEvent) {
        guard !Task.isCancelled else { return }
        inner.log(event: event)
    }
}
