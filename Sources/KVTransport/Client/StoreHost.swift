// A store's host by name or address, looked up where nobody waits: a resolver that does not answer takes half a minute to
// say so, and on the client's thread all its requests would miss their deadlines meanwhile.

import Glibc
import KVModel
import KVSystem
import Synchronization

/// A host that connections go to. A name is looked up once when this is made, and again beside each further connection, on
/// a thread of its own: who moved is found at the connection after the next. An address is not looked up at all.
package final class StoreHost: Sendable {
    /// What a resolver says of a name.
    package enum Answer: Sendable {
        /// An address as text.
        case address(String)
        /// None, and why: a sentence without a full stop.
        case none(String)
    }

    /// Asks a resolver for a name. It may take its time.
    package typealias LookUp = @Sendable (String) -> Answer

    private let name: String
    private let lookUp: LookUp
    private let isAddress: Bool
    private let known: Mutex<Answer>
    private let isLookingUp = Atomic<Bool>(false)

    package init(_ name: String, lookUp: @escaping LookUp = { StoreHost.address(of: $0, flags: 0) }) {
        self.name = name
        self.lookUp = lookUp
        if case .address = Self.address(of: name, flags: AI_NUMERICHOST) {
            isAddress = true
            known = Mutex(.address(name))
        } else {
            isAddress = false
            known = Mutex(lookUp(name))
        }
    }

    /// The address as last known. It never waits.
    package func address() throws(SystemError) -> String {
        lookUpAgain()
        switch known.withLock({ $0 }) {
        case .address(let address): return address
        case .none(let words): throw SystemError(number: KernelError.addressNotAvailable, saying: words)
        }
    }

    private func lookUpAgain() {
        guard !isAddress, !isLookingUp.exchange(true, ordering: .acquiringAndReleasing) else { return }
        let resolver = try? EngineThread("kv-resolver") { [self] in
            let answer = lookUp(name)
            known.withLock { known in
                // What was known once is better than nothing.
                if case .address = known, case .none = answer { return }
                known = answer
            }
            isLookingUp.store(false, ordering: .releasing)
        }
        // It ends by itself.
        if resolver?.join(atMost: .zero) == nil { isLookingUp.store(false, ordering: .releasing) }
    }

    /// The first address of a host as text.
    private static func address(of name: String, flags: Int32) -> Answer {
        var hints = unsafe addrinfo()
        unsafe hints.ai_flags = flags
        unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        let code = unsafe getaddrinfo(name, nil, &hints, &found)
        guard code == 0, let first = unsafe found else {
            if code == 0 || code == EAI_NONAME { return .none("no such host \(name)") }
            return .none("the host \(name) cannot be looked up: \(unsafe String(cString: gai_strerror(code)))")
        }
        defer { unsafe freeaddrinfo(first) }
        var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        let error = unsafe getnameinfo(
            first.pointee.ai_addr, first.pointee.ai_addrlen, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST)
        guard error == 0 else { return .none("the address of the host \(name) has no text") }
        return .address(String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }
}
