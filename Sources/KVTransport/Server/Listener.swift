// The socket that a lane accepts connections from.

import CKernel
import KVModel
import KVSystem

/// A listening socket on its lane's poller. It is muted for a while when there is no room for one more: the poller would
/// name it again at once, and accepting would fail again.
struct Listener {
    /// The tag of its events.
    static let tag = UInt64.max
    private static let pause = Duration(milliseconds: 100)

    private let descriptor: Int32
    private let poller: Poller
    private var name = [CChar](repeating: 0, count: 80)
    /// When it is heard again, if it is muted.
    private(set) var opensAt: Instant?

    init(_ descriptor: Int32, on poller: Poller) {
        self.descriptor = descriptor
        self.poller = poller
        poller.add(descriptor, for: .readable, tag: Self.tag)
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
            if KernelError.isOutOfRoom(Int(-accepted)) {
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
        poller.add(descriptor, for: .readable, tag: Self.tag)
    }

    /// Accepts nothing more.
    mutating func stop() {
        if opensAt == nil { mute() }
        opensAt = nil
    }

    private func mute() { poller.remove(descriptor) }

    /// Gives the socket back; the last call.
    func close() { hf_close(descriptor) }
}
