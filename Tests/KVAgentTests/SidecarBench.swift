// An agent behind its door, as `holdfast agent` runs one, and engines of this process that lend, borrow and commit there.

import Foundation
import KVAgent
import KVModel
import KVSystem
import KVTiering
import Testing

/// Suites over such an agent.
protocol SidecarBench {}

extension SidecarBench {
    /// An agent with little memory, whose journal is checked at the end.
    ///
    /// - Parameters:
    ///   - ownership: Who owns which tier, by the engines that will come.
    ///   - device: In place of the one that the settings name.
    func withSidecar(
        of ownership: Ownership, secret: [UInt8], device: DeviceAccess?,
        _ change: (inout AgentConfiguration) -> Void, _ body: (AgentSidecar) throws -> Void
    ) throws {
        let folder = try Folder()
        var configuration = AgentConfiguration()
        configuration.socket = folder.path("s")
        configuration.journal = folder.path("journal")
        configuration.journalSize = journalBytesMax
        configuration.dram = 4 << 20
        configuration.http = ""
        configuration.prefill = PrefillCost(base: 0, linear: 0.1, quadratic: 0)
        change(&configuration)
        var surroundings = AgentSurroundings(links: fastLinks)
        surroundings.storeSecret = secret
        surroundings.device = device
        let sidecar = try AgentSidecar(configuration, in: surroundings, logger: quietLogger())
        defer { sidecar.endWithJournal(ownership: ownership) }
        try body(sidecar)
    }

    func engine(
        _ sidecar: AgentSidecar, kind: String, _ ownership: Ownership, _ access: EngineArenaAccess
    ) throws -> EngineClient {
        var hello = Sample.hello(kind: kind)
        hello.ownership = ownership
        var configuration = Sample.patient(sidecar.configuration.socket, hello)
        configuration.backoff = Duration(milliseconds: 10)
        configuration.arena = access
        return try EngineClient(configuration)
    }

    func reserve(_ client: EngineClient, _ count: Int, lifetime: Duration = .zero) -> EngineReservation? {
        let box = Box<EngineReservation?>()
        client.reserve(count, lifetime: lifetime) { box.set($0) }
        return box.wait() ?? nil
    }

    func commit(
        _ reservation: EngineReservation, _ slots: Range<Int>, _ names: [ObjectName], request: EngineTicket = 0
    ) -> EngineSaved? {
        let box = Box<EngineSaved>()
        reservation.commit(slots, as: names, request: request) { box.set($0) }
        return box.wait()
    }

    func holds(_ lease: EngineLease, _ index: Int, _ value: UInt8) -> Bool {
        unsafe lease.read(index) { bytes in unsafe bytes.allSatisfy { $0 == value } } ?? false
    }

    func status(_ sidecar: AgentSidecar) throws -> AgentStatus {
        let agent = try #require(sidecar.agent)
        #expect(agent.waitUntilQuiet(within: waitLimit))
        return agent.status
    }
}
