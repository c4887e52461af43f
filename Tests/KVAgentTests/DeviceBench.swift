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
protocol DeviceBench {}

extension DeviceBench {
    /// - Parameter device: In place of the ordinary emulated one.
    func withSidecar(
        _ change: (inout AgentConfiguration) -> Void = { _ in }, secret: [UInt8] = [], device: DeviceAccess? = nil,
        _ body: (AgentSidecar) throws -> Void
    ) throws {
        let folder = try Folder()
        var configuration = AgentConfiguration()
        configuration.socket = folder.path("s")
        configuration.journal = folder.path("journal")
        configuration.journalSize = journalBytesMax
        configuration.dram = 4 << 20
        configuration.hbm = 32 * Sample.blockBytes
        configuration.device = "emulated"
        configuration.http = ""
        configuration.planner = .always
        configuration.prefill = PrefillCost(base: 0, linear: 0.1, quadratic: 0)
        change(&configuration)
        var surroundings = AgentSurroundings(links: fastLinks)
        surroundings.storeSecret = secret
        surroundings.device = device
        let sidecar = try AgentSidecar(configuration, in: surroundings, logger: quietLogger())
        defer { sidecar.endWithJournal(ownership: .full) }
        try body(sidecar)
    }

    func engine(
        _ sidecar: AgentSidecar, _ ownership: Ownership = .full, _ access: EngineArenaAccess = .writing
    ) throws -> EngineClient {
        var hello = Sample.hello()
        hello.ownership = ownership
        var configuration = EngineClientConfiguration(path: sidecar.configuration.socket, hello: hello)
        configuration.backoff = Duration(milliseconds: 10)
        configuration.lookUpLimit = Duration(seconds: 10)
        configuration.jobLimit = Duration(seconds: 10)
        configuration.arena = access
        return try EngineClient(configuration)
    }

    func attached(_ sidecar: AgentSidecar) throws -> EngineClient {
        let client = try engine(sidecar)
        #expect(Sample.wait { client.arena != nil })
        return client
    }

    func reserve(_ client: EngineClient, _ count: Int) -> EngineReservation? {
        let box = Box<EngineReservation?>()
        client.reserve(count) { box.set($0) }
        return box.wait() ?? nil
    }

    func take(_ client: EngineClient, _ count: Int, request: EngineTicket) -> EngineLease? {
        let box = Box<EngineLease?>()
        client.take(first: 0, count: count, request: request) { box.set($0) }
        return box.wait() ?? nil
    }

    func commit(
        _ reservation: EngineReservation, _ names: [ObjectName], request: EngineTicket
    ) -> EngineSaved? {
        let box = Box<EngineSaved>()
        reservation.commit(0..<reservation.reserved.slots.count, as: names, request: request) { box.set($0) }
        return box.wait()
    }

    func status(_ sidecar: AgentSidecar) throws -> AgentStatus {
        let agent = try #require(sidecar.agent)
        #expect(agent.waitUntilQuiet(within: waitLimit))
        return agent.status
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
            let saved = commit(
                reservation, Array(names[..<(came + reservation.reserved.slots.count)]), request: ticket)
            #expect(saved != nil && (!isKept || saved?.keptCount == reservation.reserved.slots.count))
            holding.reservation = reservation
        }
        return holding
    }

    func holds(_ lease: EngineLease, _ index: Int, _ value: UInt8) -> Bool {
        unsafe lease.read(index) { bytes in unsafe bytes.allSatisfy { $0 == value } } ?? false
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
