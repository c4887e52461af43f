// A server's certificate and key before it listens with them: whether they belong together, and how long they hold.

import KVModel
import NIOSSL

/// When a chain of certificates holds, in wall-clock seconds since 1970.
public struct TLSValidity: Sendable, Equatable {
    /// From here on all of it does.
    public private(set) var begins = Int64.min
    /// From here on not all of it does.
    public private(set) var ends = Int64.max

    /// Reads a chain and the key of its first certificate, and sets TLS up with them as a server does.
    ///
    /// - Throws: A file that cannot be read or has none in it, a key of another certificate.
    public init(certificateChain: String, privateKey: String) throws(OperatorError) {
        let chain = try TLSPump.certificates(certificateChain)
        let tls = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain, privateKey: try TLSPump.privateKey(privateKey))
        _ = try TLSPump.context(tls, place: certificateChain)
        for case .certificate(let certificate) in chain {
            begins = max(begins, Int64(certificate.notValidBefore))
            ends = min(ends, Int64(certificate.notValidAfter))
        }
    }
}
