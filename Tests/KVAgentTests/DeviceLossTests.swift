// A device that is lost while engines work on it: what lay there is a miss, nothing wrong is served, nobody waits for ever, and
// the ledger says what was lost and why.

import KVAgent
import KVMemory
import KVModel
import KVSystem
import KVTiering
import Synchronization
import Testing

/// An emulated device that is lost when somebody says so.
private final class DeviceSwitch: Sendable {
    enum Loss: CaseIterable {
        /// It takes no copies any more.
        case takesNothing
        /// It takes some once more, and they come back undone.
        case bringsNothingBack
    }

    private enum State { case well, lostWithTheNext, lost }
    private let state = Mutex(State.well)

    func lose(_ loss: Loss) { state.withLock { $0 = loss == .takesNothing ? .lost : .lostWithTheNext } }

    var isLost: Bool { state.withLock { $0 == .lost } }

    /// Whether copies are taken on.
    func takes() -> Bool {
        state.withLock { state in
            defer { if state == .lostWithTheNext { state = .lost } }
            return state != .lost
        }
    }

    var access: DeviceAccess {
        DeviceAccess { [self] (slotBytes, slotCount, host, sink) throws(OperatorError) in
            let inner = try EmulatedDevice(slotBytes: slotBytes, slotCount: slotCount, host: host) { [self] copies in
                var copies = copies
                if isLost { for index in copies.copies.indices { copies.copies[index].isWhole = false } }
                sink(copies)
            }
            return LosableDevice(inner, self)
        }
    }
}

private final class LosableDevice: DeviceMemory {
    private let inner: EmulatedDevice
    private let breaker: DeviceSwitch

    init(_ inner: EmulatedDevice, _ breaker: DeviceSwitch) { (self.inner, self.breaker) = (inner, breaker) }

    var deviceName: String { inner.deviceName }
    var isEmulated: Bool { inner.isEmulated }
    var slotBytes: Int { inner.slotBytes }
    var slotCount: Int { inner.slotCount }
    var descriptor: Int32? { inner.descriptor }
    var failure: String? { breaker.isLost ? "the bus lost it" : nil }
    func slice(_ slot: Int, _ count: Int) -> MemorySlice { inner.slice(slot, count) }
    func submit(_ copies: DeviceCopies) -> Acceptance { breaker.takes() ? inner.submit(copies) : .full }
    func shutDown() { inner.shutDown() }
}

@Suite(.serialized) struct DeviceLossTests: DeviceBench {
    @Test(arguments: [DeviceSwitch.Loss.takesNothing, .bringsNothingBack])
    fileprivate func whatLayOnALostDeviceIsAMissByItsCause(_ loss: DeviceSwitch.Loss) throws {
        let device = DeviceSwitch()
        try withSidecar(device: device.access) { sidecar in
            let client = try attached(sidecar)
            defer { client.close() }
            for seed in 1...2 as ClosedRange<UInt64> { end(client, try begin(client, seed: seed, count: 8)) }
            let held = try begin(client, seed: 3, count: 4)
            #expect(try status(sidecar).device == "emulated device (no GPU)")
            device.lose(loss)
            // What is written now is copied nowhere: it goes with the device.
            end(client, try begin(client, seed: 4, count: 6, isKept: false))
            #expect(try status(sidecar).device == "emulated device (no GPU), lost: the bus lost it")
            // Node memory has copies of this one, and there is nowhere to bring them.
            let kept = try begin(client, seed: 1, count: 8)
            #expect(kept.found.hbmBlocks == 0 && kept.found.dramBlocks == 8)
            #expect(kept.lease?.taken.blocks.isEmpty ?? true)
            #expect(kept.reservation == nil)
            end(client, kept)
            let gone = try begin(client, seed: 4, count: 6)
            #expect(gone.found.hitBlocks == 0 && gone.reservation == nil)
            end(client, gone)
            end(client, held)
            let status = try status(sidecar)
            #expect(status.ledger["noTier"] == 128)
            #expect(status.ledger["lostAfterLookUp"] == 96)
            for part in ["hbm", "dram", "corrupt"] { #expect(status.ledger[part] == 0, "\(part)") }
            let prompts = [8, 8, 4, 6, 8, 6].reduce(0) { $0 + 16 * $1 + 1 }
            #expect(status.ledger.values.reduce(0, +) == prompts)
            // Nobody holds a slot of it any more.
            #expect(status.hbm?.usedBytes == 0)
            let agent = try #require(sidecar.agent)
            #expect(agent.inspect { $0.audit() } == [])
        }
    }

    @Test(arguments: [DeviceSwitch.Loss.takesNothing, .bringsNothingBack])
    fileprivate func aLoadThatALossMeetsEndsAndItsEngineComputes(_ loss: DeviceSwitch.Loss) throws {
        let device = DeviceSwitch()
        try withSidecar(device: device.access) { sidecar in
            let client = try attached(sidecar)
            defer { client.close() }
            // More than the device holds: the first chain is in node memory alone.
            for seed in 1...4 as ClosedRange<UInt64> {
                end(client, try begin(client, seed: seed, count: 12))
                // Slots whose blocks are still copied down cannot be given to the next.
                _ = try status(sidecar)
            }
            device.lose(loss)
            let holding = try begin(client, seed: 1, count: 12, isKept: false)
            #expect(holding.found.hitBlocks == 12 && holding.found.dramBlocks > 0)
            #expect(holding.lease?.taken.blocks.count ?? 0 <= Int(holding.found.hbmBlocks))
            end(client, holding)
            let status = try status(sidecar)
            #expect(status.device?.contains("lost") == true)
            #expect(status.totals["corrupt_into_engine"] == 0)
            #expect(status.ledger["corrupt"] == 0)
            #expect(status.ledger["late"] == 192)
            let prompts = 5 * 193
            #expect(status.ledger.values.reduce(0, +) == prompts)
            #expect(status.hbm?.usedBytes == 0)
            let agent = try #require(sidecar.agent)
            #expect(agent.inspect { $0.audit() } == [])
        }
    }
}
