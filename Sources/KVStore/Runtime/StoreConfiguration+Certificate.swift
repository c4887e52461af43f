// What clients will say of the certificate that TLS is served with: told before they do.

import Foundation
import KVModel
import KVTransport

extension StoreConfiguration {
    /// How long before its end a certificate is told of: two weeks.
    private static let noticeSeconds: Int64 = 14 * 86_400

    /// What is wrong with the certificate now or soon, without its path: `has expired (2026-03-01)`. Nil: nothing, or TLS is served
    /// nowhere.
    ///
    /// - Throws: A file that cannot be read or has none in it, a key of another certificate.
    public func certificateTrouble(at now: Date = Date()) throws(OperatorError) -> CertificateTrouble? {
        guard !tlsListen.isEmpty, !tlsCertificate.isEmpty, !tlsKey.isEmpty else { return nil }
        let validity = try TLSValidity(certificateChain: tlsCertificate, privateKey: tlsKey)
        func day(_ second: Int64) -> String {
            Date(timeIntervalSince1970: Double(second)).formatted(.iso8601.year().month().day())
        }
        let second = Int64(now.timeIntervalSince1970)
        if second >= validity.ends {
            return CertificateTrouble(isRefused: true, words: "has expired (\(day(validity.ends)))")
        }
        if second < validity.begins {
            return CertificateTrouble(isRefused: true, words: "does not hold yet (from \(day(validity.begins)) on)")
        }
        guard second >= validity.ends - Self.noticeSeconds else { return nil }
        return CertificateTrouble(isRefused: false, words: "expires soon (\(day(validity.ends)))")
    }
}

/// What is wrong with a certificate.
public struct CertificateTrouble: Sendable, Equatable {
    /// Whether clients refuse it now.
    public var isRefused: Bool
    /// What it does: a sentence behind its path.
    public var words: String
}
