// What the agent says to engines, and when, without moving a byte.

import KVAgent
import KVModel
import KVSystem
import KVTiering
import Testing

@Suite struct EngineDeskTests {
    private static func desk(_ limits: AgentLimits = AgentLimits()) throws -> EngineDesk {
        let tiering = try AgentConfiguration().tiering(
            slotBytes: Sample.blockBytes, blockTokens: 16, ownership: .engine)
        var desk = EngineDesk(tiering, limits: limits)
        desk.take(.attach(1, Sample.hello()), links: fastLinks, at: .zero)
        let memory = try BlockMemory(byteCount: 64 * Sample.blockBytes, wantsHugePages: false)
        desk.take(.addRegion(1, EngineRegion(number: 0, memory: memory)), links: fastLinks, at: .zero)
        desk.replies = []
        return desk
    }

    /// Events that the decisions would have had.
    private func settle(_ desk: inout EngineDesk) -> [RequestNumber] {
        var computed: [RequestNumber] = []
        while !desk.events.isEmpty {
            let events = desk.events
            desk.events = []
            for event in events {
                if case .computed(let part) = event { computed.append(part.request) }
                desk.handled(event)
            }
        }
        return computed
    }

    @Test func aTouchIsANoteAndNoRequest() throws {
        var desk = try Self.desk()
        desk.take(.touch(1, Sample.names(1, 3)), links: fastLinks, at: .zero)
        let touched = desk.events.map { event in if case .touched(let chain) = event { chain.count } else { -1 } }
        #expect(touched == [3])
        #expect(desk.replies.isEmpty)
        #expect(settle(&desk) == [])
    }

    /// Four thousand requests of the longest chains would take gigabytes.
    @Test func whatIsOpenCountsByItsKeysAndPlaces() throws {
        var limits = AgentLimits()
        limits.openItemsPerEngineMax = 8
        var desk = try Self.desk(limits)
        func lookUp(_ ticket: EngineTicket) -> Bool {
            let asked = EngineLookUp(ticket: ticket, names: Sample.names(ticket, 4), promptTokens: 65)
            desk.take(.lookUp(1, asked), links: fastLinks, at: .zero)
            defer { desk.events = [] }
            return desk.events.contains { event in if case .arrived = event { true } else { false } }
        }
        let areHeard = ([1, 2] as [EngineTicket]).map { lookUp($0) }
        #expect(areHeard == [true, true])
        #expect(desk.openItems == 8)
        let isThirdHeard = lookUp(3)
        #expect(!isThirdHeard, "nothing more is looked up")
        let refused = desk.replies.contains { reply in if case .found(1, 3, _) = reply { true } else { false } }
        #expect(refused, "and the engine is told at once")
        for ticket in [1, 2] as [EngineTicket] {
            desk.take(.finished(1, EngineRequestEnd(ticket: ticket)), links: fastLinks, at: .zero)
        }
        _ = settle(&desk)
        #expect(desk.openItems == 0)

        // Three keys and three places, twice, are more than eight.
        let saves = ([4, 5] as [EngineTicket]).map { job in
            EngineSave(job: job, names: Sample.names(job, 3), first: 0, places: Sample.rows([0, 1, 2]))
        }
        desk.replies = []
        for save in saves { desk.take(.save(1, save), links: fastLinks, at: .zero) }
        let answered = desk.replies.compactMap { reply in if case .saved(_, let job, _) = reply { job } else { nil } }
        #expect(answered == [5])
        #expect(desk.openItems == 6)
        _ = settle(&desk)
        for number in desk.endedSaves { desk.answerSave(number) { _ in true } }
        #expect(desk.openItems == 0)
    }

    @Test func fewHintsAreUnderWayAtOnce() throws {
        var limits = AgentLimits()
        limits.hintsMax = 2
        var desk = try Self.desk(limits)
        for seed in 1...3 as ClosedRange<UInt64> {
            desk.take(.prefetch(1, Sample.names(seed, 3)), links: fastLinks, at: .zero)
        }
        #expect(desk.events.count == 2)
        let numbers = desk.events.compactMap { event in
            if case .arrived(let arrival) = event { arrival.request } else { nil }
        }
        desk.events = []
        for number in numbers { desk.take(Command.answer(Answer(request: number))) }
        _ = settle(&desk)
        #expect(desk.openItems == 0)
        desk.take(.prefetch(1, Sample.names(4, 3)), links: fastLinks, at: .zero)
        #expect(desk.events.count == 1, "room again")
    }

    /// A field that only one of two engines states makes other names of the same blocks.
    @Test func eachFieldInWhichEnginesDifferIsNamed() throws {
        var desk = try Self.desk()
        var hello = Sample.hello(model: "other")
        hello.namespace["rope"] = "2"
        desk.take(.attach(2, hello), links: fastLinks, at: .zero)
        let reasons = desk.replies.compactMap { reply in
            if case .refused(2, let reason, .layout) = reply { reason } else { nil }
        }
        #expect(
            reasons == [
                "its namespace | that of engine 1 (replay): model: other | test; rope: 2 | not stated"
            ])
    }

    @Test func aPromptThatIsLookedUpInPartsIsInTheLedgerOnce() throws {
        var desk = try Self.desk()
        for (ticket, tokens) in [(7, 49), (8, 0)] as [(EngineTicket, Int32)] {
            let lookUp = EngineLookUp(ticket: ticket, names: Sample.names(1, 3), promptTokens: tokens)
            desk.take(.lookUp(1, lookUp), links: fastLinks, at: .zero)
            desk.take(.finished(1, EngineRequestEnd(ticket: ticket)), links: fastLinks, at: .zero)
        }
        let computed = desk.events.compactMap { event in if case .computed(let part) = event { part } else { nil } }
        #expect(computed.map { $0.parts.contains(.booked) } == [true, false])
        #expect(computed.allSatisfy { $0.parts.contains(.kept) }, "both parts' blocks are the policies' to see")
    }

    @Test func aCancelledRequestIsOverWhenItsSavesAre() throws {
        var desk = try Self.desk()
        let names = Sample.names(1, 3)
        let lookUp = EngineLookUp(ticket: 7, names: names, promptTokens: 49)
        desk.take(.lookUp(1, lookUp), links: fastLinks, at: .zero)
        _ = settle(&desk)
        let save = EngineSave(job: 8, request: 7, names: names, first: 0, places: Sample.rows([0, 1, 2]))
        desk.take(.save(1, save), links: fastLinks, at: .zero)
        // Its blocks are being copied out of the engine.
        let number = try #require(
            desk.events.compactMap { event in
                if case .computed(let part) = event, part.parts == [.kept] { part.request } else { nil }
            }.first)
        desk.flightBegan(number, touches: true)
        _ = settle(&desk)
        desk.take(.cancel(1, 7), links: fastLinks, at: .zero)
        _ = settle(&desk)
        func said(_ isWanted: (EngineReply) -> Bool) -> Bool { desk.replies.contains(where: isWanted) }
        #expect(!said { if case .cancelled(1, 7) = $0 { true } else { false } }, "its places are still read")
        desk.flightEnded(number, touches: true)
        #expect(desk.endedSaves == [number])
        desk.endedSaves = []
        desk.answerSave(number) { _ in false }
        let order = desk.replies.compactMap { reply -> String? in
            switch reply {
            case .saved(1, job: 8, _): "saved"
            case .cancelled(1, 7): "cancelled"
            default: nil
            }
        }
        #expect(order == ["saved", "cancelled"])
        #expect(desk.isQuiet || !desk.replies.isEmpty)
    }
}
