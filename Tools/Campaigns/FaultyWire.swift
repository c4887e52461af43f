// A stretch of wire between an agent and its store that can be made slow, deaf or torn while bytes are on it. It stands where
// the store's address is, so that a store that dies and comes back elsewhere is still found at the same place.

import CKernel
import Glibc
import KVModel
import KVSystem
import Synchronization

/// What is wrong with a wire.
enum WireFault: Sendable, Equatable {
    case none
    /// The connections of this moment carry nothing any more and never end; new ones are well.
    case halfOpen
    /// Each connection is reset after a while drawn around this mean.
    case resets(mean: Duration)
    /// Each direction carries so many bytes a second, whatever the number of connections.
    case rate(bytesPerSecond: Double)
}

/// The wire: one thread, sockets that never block.
final class FaultyWire: Sendable {
    /// What others set.
    struct Order {
        var fault = WireFault.none
        /// Rises with each order, so that the same fault can be ordered twice.
        var number = 0
        var target: UInt16
        var isOver = false
    }

    /// Where agents find the store.
    let port: UInt16
    private let order: Mutex<Order>
    private let resetCount = Atomic<Int>(0)
    private let thread: Mutex<EngineThread?>

    init(target: UInt16, seed: UInt64) throws {
        let listener = unsafe hf_tcp_listen("127.0.0.1", 0, 64)
        guard listener >= 0 else { throw SystemError(number: -listener, doing: "listen for the agent") }
        port = UInt16(hf_socket_port(listener))
        order = Mutex(Order(target: target))
        thread = Mutex(nil)
        let started = try EngineThread("wire") { [self] in
            WireLoop(listener: listener, seed: seed, resets: { _ = self.resetCount.add($0, ordering: .relaxed) }).run {
                order.withLock { $0 }
            }
        }
        thread.withLock { $0 = started }
    }

    /// Connections that were reset so far.
    var resets: Int { resetCount.load(ordering: .relaxed) }

    func set(_ fault: WireFault) {
        order.withLock {
            $0.fault = fault
            $0.number += 1
        }
    }

    /// Where the store is from now on; connections that stand end with the store they lead to.
    func lead(to port: UInt16) { order.withLock { $0.target = port } }

    func end() {
        order.withLock { $0.isOver = true }
        thread.withLock { $0.take() }?.join()
    }
}

/// Lives on the wire's thread.
private final class WireLoop {
    /// One way of a connection, with what was read and not yet sent.
    struct Way {
        var from: Int32
        var to: Int32
        var bytes = [UInt8](repeating: 0, count: WireLoop.pieceBytes)
        var held = 0..<0
    }

    struct Pair {
        /// To the store, and from it.
        var ways: [Way]
        var isDead = false
        var resetsAt = Instant.distantFuture
    }

    static let pieceBytes = 256 << 10
    private let listener: Int32
    private let resets: (Int) -> Void
    private var random: RandomSource
    private var pairs: [Pair] = []
    private var fault = WireFault.none
    private var orderNumber = 0
    private var now = MonotonicClock.now
    /// Bytes that each direction may still carry.
    private var allowance = [0.0, 0.0]
    private var allowedAt = MonotonicClock.now

    init(listener: Int32, seed: UInt64, resets: @escaping (Int) -> Void) {
        self.listener = listener
        self.resets = resets
        random = RandomSource(seed: seed)
    }

    func run(_ order: () -> FaultyWire.Order) {
        while true {
            let wanted = order()
            guard !wanted.isOver else { break }
            now = MonotonicClock.now
            if wanted.number != orderNumber { take(wanted) }
            refill()
            accept(target: wanted.target)
            for index in pairs.indices.reversed() where !pairs[index].isDead {
                if now >= pairs[index].resetsAt || !carry(index) { close(pairs.remove(at: index), resets: true) }
            }
            wait()
        }
        for pair in pairs { close(pair, resets: false) }
        hf_close(listener)
    }

    private func take(_ order: FaultyWire.Order) {
        orderNumber = order.number
        fault = order.fault
        for index in pairs.indices {
            if fault == .halfOpen { pairs[index].isDead = true }
            pairs[index].resetsAt = nextReset()
        }
    }

    private func nextReset() -> Instant {
        guard case .resets(let mean) = fault else { return .distantFuture }
        return now + Duration(seconds: mean.seconds * 2 * random.uniform())
    }

    private func refill() {
        let passed = (now - allowedAt).seconds
        allowedAt = now
        for way in allowance.indices {
            if case .rate(let rate) = fault {
                // What was not used is not saved up for longer than a twentieth of a second.
                allowance[way] = min(allowance[way] + passed * rate, max(1500, rate / 20))
            } else {
                allowance[way] = .infinity
            }
        }
    }

    private func accept(target: UInt16) {
        while true {
            let engine = hf_accept(listener, nil, 0)
            guard engine >= 0 else { return }
            let store = unsafe hf_tcp_connect("127.0.0.1", target)
            guard store >= 0 else {
                hf_close(engine)
                continue
            }
            _ = hf_tcp_configure(engine, 0, 0)
            _ = hf_tcp_configure(store, 0, 0)
            pairs.append(
                Pair(ways: [Way(from: engine, to: store), Way(from: store, to: engine)], resetsAt: nextReset()))
        }
    }

    /// Carries what there is; false when the connection has ended.
    private func carry(_ index: Int) -> Bool {
        for way in 0..<2 {
            while true {
                if pairs[index].ways[way].held.isEmpty, !read(index, way) { return false }
                guard !pairs[index].ways[way].held.isEmpty else { break }
                guard send(index, way) else { return false }
                guard pairs[index].ways[way].held.isEmpty else { break }
            }
        }
        return true
    }

    private func read(_ index: Int, _ way: Int) -> Bool {
        let room = Int(min(Double(Self.pieceBytes), allowance[way]))
        guard room > 0 else { return true }
        let from = pairs[index].ways[way].from
        let got = unsafe pairs[index].ways[way].bytes.withUnsafeMutableBytes {
            unsafe hf_receive(from, $0.baseAddress, room)
        }
        pairs[index].ways[way].held = 0..<max(0, Int(got))
        allowance[way] -= Double(max(0, got))
        return got > 0 || (got < 0 && Self.mayPass(got))
    }

    private func send(_ index: Int, _ way: Int) -> Bool {
        let (to, held) = (pairs[index].ways[way].to, pairs[index].ways[way].held)
        let sent = unsafe pairs[index].ways[way].bytes.withUnsafeBytes { bytes in
            unsafe hf_send(to, bytes.baseAddress! + held.lowerBound, held.count, 0)
        }
        if sent < 0 { return Self.mayPass(sent) }
        pairs[index].ways[way].held = held.lowerBound + Int(sent)..<held.upperBound
        return true
    }

    /// Whether an error says no more than "not now". A socket that connects still is not connected.
    private static func mayPass(_ error: Int64) -> Bool { error == -Int64(EAGAIN) || error == -Int64(ENOTCONN) }

    private func wait() {
        var waiting = [pollfd(fd: listener, events: Int16(POLLIN), revents: 0)]
        var isWaitingForTime = false
        for pair in pairs where !pair.isDead {
            if pair.resetsAt != .distantFuture { isWaitingForTime = true }
            for (number, way) in pair.ways.enumerated() {
                if !way.held.isEmpty {
                    waiting.append(pollfd(fd: way.to, events: Int16(POLLOUT), revents: 0))
                } else if allowance[number] >= 1 {
                    waiting.append(pollfd(fd: way.from, events: Int16(POLLIN), revents: 0))
                } else {
                    isWaitingForTime = true
                }
            }
        }
        _ = unsafe poll(&waiting, nfds_t(waiting.count), isWaitingForTime ? 2 : 20)
    }

    private func close(_ pair: Pair, resets isReset: Bool) {
        for way in pair.ways {
            var option = linger(l_onoff: isReset ? 1 : 0, l_linger: 0)
            _ = unsafe setsockopt(way.from, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
            hf_close(way.from)
        }
        if isReset { resets(1) }
    }
}
