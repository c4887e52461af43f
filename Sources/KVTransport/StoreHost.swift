// A store's host by name or address, looked up where nobody waits: a resolver that does not answer takes half a minute to
// say so, and on the client's thread all its requests would miss their deadlines meanwhile.

import Glibc
import KVModel
import KVSystem
import Synchronization

/// A host that connections go to. A name is looked up once when this is made, and again beside each further connection, on
/// a thread of its own: who moved is found at the connection after the next. An address is not looked up at all.
package final class StoreHost: Sendable {
    /// The address of a name as text, or nil. It may take its time.
    package typealias LookUp = @Sendable (String) -> String?

    private let name: String
    private let lookUp: LookUp
    private let isAddress: Bool
    private let known: Mutex<String?>
    private let isLookingUp = Atomic<Bool>(false)

    package init(_ name: String, lookUp: @escaping LookUp = { StoreHost.address(of: $0, flags: 0) }) {
        self.name = name
        self.lookUp = lookUp
        isAddress = Self.address(of: name, flags: AI_NUMERICHOST) != nil
        known = Mutex(isAddress ? name : lookUp(name))
    }

    /// The address as last known. It never waits.
    package func address() throws(SystemError) -> String {
        lookUpAgain()
        guard let address = known.withLock({ $0 }) else {
            throw SystemError(number: KernelError.addressNotAvailable, doing: "look up the host \(name)")
        }
        return address
    }

    private func lookUpAgain() {
        guard !isAddress, !isLookingUp.exchange(true, ordering: .acquiringAndReleasing) else { return }
        let resolver = try? EngineThread("kv-resolver") { [self] in
            if let address = lookUp(name) { known.withLock { $0 = address } }
            isLookingUp.store(false, ordering: .releasing)
        }
        // It ends by itself.
        if resolver?.join(atMost: .zero) == nil { isLookingUp.store(false, ordering: .releasing) }
    }

    /// The first address of a host as text.
    private static func address(of name: String, flags: Int32) -> String? {
        var hints = unsafe addrinfo()
        unsafe hints.ai_flags = flags
        unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        guard unsafe getaddrinfo(name, nil, &hints, &found) == 0, let first = unsafe found else { return nil }
        defer { unsafe freeaddrinfo(first) }
        var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        let error = unsafe getnameinfo(
            first.pointee.ai_addr, first.pointee.ai_addrlen, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST)
        guard error == 0 else { return nil }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
