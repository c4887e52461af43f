// What went wrong with TLS, in sentences: the library's own words are numbers, and places in its sources.

import KVSystem
import NIOCore
import NIOPosix
import NIOSSL

/// The words of TLS errors.
enum TLSWords {
    /// What the library says, and what it means to a client of a store.
    private static let meanings: [(mark: String, words: String)] = [
        (
            "CERTIFICATE_VERIFY_FAILED",
            "the store's certificate is not of the authority that is trusted here, or does not hold now"
        ),
        ("failedToValidateHostname", "the store's certificate stands for another name or address"),
        ("unableToValidateCertificate", "the store's certificate stands for another name or address"),
        ("CERTIFICATE_REQUIRED", "the store wants a certificate of its clients, and none was given"),
        ("UNKNOWN_CA", "the store does not trust the authority of the client's certificate"),
        ("ALERT_BAD_CERTIFICATE", "the store does not accept the client's certificate"),
        ("ALERT_CERTIFICATE_EXPIRED", "the client's certificate has expired"),
        ("ALERT_CERTIFICATE_UNKNOWN", "the store does not accept the client's certificate"),
        ("ALERT_DECRYPT_ERROR", "the client's certificate and its key do not belong together"),
        ("KEY_VALUES_MISMATCH", "certificate and key do not belong together"),
        ("WRONG_VERSION_NUMBER", "what answers there does not speak TLS"),
        ("PROTOCOL_VERSION", "the other side does not speak TLS 1.3"),
        ("uncleanShutdown", "the other side closed the connection"),
        ("failedToLoadCertificate", "there is no certificate in it"),
        ("NO_CERTIFICATE_OR_CRL_FOUND", "there is no certificate in it"),
        ("failedToLoadPrivateKey", "there is no private key, or one of another certificate"),
        ("EOF during handshake", "the other side closed the connection; perhaps it does not speak TLS"),
        ("noSuchFilesystemObject", "there is no such file"),
    ]

    /// One sentence without a full stop.
    static func of(_ error: any Error) -> String {
        if let error = error as? NIOConnectionError {
            guard let first = error.connectionErrors.first else { return "the host \(error.host) cannot be looked up" }
            return of(first.error)
        }
        if let error = error as? IOError { return SystemError(number: error.errnoCode, doing: "connect").reason }
        let said = "\(error)"
        if let known = meanings.first(where: { said.contains($0.mark) }) { return known.words }
        return said.replacing(#/ at /\S+/#, with: "")
    }
}
