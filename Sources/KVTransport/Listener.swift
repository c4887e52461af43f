// The socket that a lane accepts connections from.

import CKernel
import KVModel

/// A listening socket on its lane's poller. It is muted for a while when no descriptors are left: the poller would name it
/// again at once, and accepting would fail again.
struct Listener {
    /// The tag of its events.
    static let tag = UInt64.max
    private static let pause = Duration(milliseconds: 100)

    private let descriptor: Int32
    private let poller: Int32
    private var name = [CChar](repeating: 0, count: 80)
    /// When it is heard again, if it is muted.
    private(set) var opensAt: Instant?

    init(_ descriptor: Int32, on poller: Int32) {
        self.descriptor = descriptor
        self.poller = poller
        hf_poller_set(poller, descriptor, 1, Self.tag, 0)
    }

    /// The next connection that waits, and the address of its peer.
    mutating func accept(at now: Instant) -> (descriptor: Int32, address: String)? {
        while true {
            let accepted = unsafe hf_accept(descriptor, &name, name.count)
            if accepted >= 0 {
                let text = name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
                return (accepted, String(decoding: text, as: UTF8.self))
            }
            if -accepted == KernelError.connectionAborted { continue }
            if KernelError.isOutOfDescriptors(Int(-accepted)) {
                mute()
                opensAt = now + Self.pause
            }
            return nil
        }
    }

    /// Is heard again when its pause is over.
    mutating func tick(at now: Instant) {
        guard let time = opensAt, now >= time else { return }
        opensAt = nil
        hf_poller_set(poller, descriptor, 1, Self.tag, 0)
    }

    /// Accepts nothing more.
    mutating func stop() {
        if opensAt == nil { mute() }
        opensAt = nil
    }

    private func mute() { hf_poller_set(poller, descriptor, 0, Self.tag, 0) }

    /// Gives the socket back; the last call.
    func close() { hf_close(descriptor) }
}
