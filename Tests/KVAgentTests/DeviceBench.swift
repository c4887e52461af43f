// A real agent that owns the slots of an emulated device, and engines that read and write their blocks there.

import Foundation
import KVAgent
import KVMemory
import KVModel
import KVSystem
import KVTiering
import Testing

/// What an engine holds of a request.
struct DeviceHolding {
    var found: EngineFound
    var ticket: EngineTicket
    var lease: EngineLease?
    var reservation: EngineReservation?
}

/// Suites over such an agent.
protocol DeviceBench: SidecarBench {}

extension DeviceBench {
    /// - Parameter device: In place of the ordinary emulated one.
    func withSidecar(
        _ change: (inout AgentConfiguration) -> Void = { _ in }, secret: [UInt8] = [], device: DeviceAccess? = nil,
        _ body: (AgentSidecar) throws -> Void
    ) throws {
        try withSidecar(
            of: .full, secret: secret, device: device,
            {
                $0.hbm = 32 * Sample.blockBytes
                $0.device = "emulated"
                $0.planner = .always
                change(&$0)
            }, body)
    }

    func engine(
        _ sidecar: AgentSidecar, _ ownership: Ownership = .full, _ access: EngineArenaAccess = .writing
    ) throws -> EngineClient {
        try engine(sidecar, kind: "replay", ownership, access)
    }

    func attached(_ sidecar: AgentSidecar) throws -> EngineClient {
        let client = try engine(sidecar)
        #expect(Sample.wait { client.arena != nil })
        return client
    }

    func take(_ client: EngineClient, _ count: Int, request: EngineTicket) -> EngineLease? {
        let box = Box<EngineLease?>()
        client.take(first: 0, count: count, request: request) { box.set($0) }
        return box.wait() ?? nil
    }

    /// Block `index` of a chain holds this byte.
    func byte(_ seed: UInt64, _ index: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: seed &* 31 &+ UInt64(index) &+ 1)
    }

    /// One request up to its answer: takes what is there, compares it, writes and commits the rest.
    ///
    /// - Parameter isKept: Whether what it commits must be kept.
    func begin(_ client: EngineClient, seed: UInt64, count: Int, isKept: Bool = true) throws -> DeviceHolding {
        let names = Sample.names(seed, count)
        let found = Box<EngineFound>()
        let ticket = client.lookUp(names, promptTokens: Int32(count * 16 + 1)) { found.set($0) }
        var holding = DeviceHolding(found: try #require(found.wait()), ticket: ticket)
        if holding.found.hitBlocks > 0 {
            holding.lease = take(client, Int(holding.found.hitBlocks), request: ticket)
        }
        let came = holding.lease?.taken.blocks.count ?? 0
        if let lease = holding.lease {
            for index in 0..<came { #expect(holds(lease, index, byte(seed, index)), "block \(index) of \(seed)") }
        }
        if came < count, let reservation = reserve(client, count - came) {
            for index in reservation.reserved.slots.indices {
                #expect(
                    unsafe reservation.fill(index) {
                        unsafe $0.initializeMemory(as: UInt8.self, repeating: byte(seed, came + index))
                    })
            }
            let kept = reservation.reserved.slots.count
            let saved = commit(reservation, 0..<kept, Array(names[..<(came + kept)]), request: ticket)
            #expect(saved != nil && (!isKept || saved?.keptCount == kept))
            holding.reservation = reservation
        }
        return holding
    }

    func end(_ client: EngineClient, _ holding: DeviceHolding) {
        client.finished(EngineRequestEnd(ticket: holding.ticket))
        holding.reservation?.release()
        // Frames are heard in their order: what this answers was heard after the end.
        let heard = Box<Bool>()
        client.statistics { heard.set(!$0.isEmpty) }
        #expect(heard.wait() == true)
    }
}
