// The rules of a session as a value: who may say what when, and what is refused in which words.

import KVAgent
import KVModel
import KVSystem
import KVTiering
import Testing

@Suite struct EngineSessionTests {
    private static func session(_ limits: EngineLimits = EngineLimits()) -> EngineSession {
        EngineSession(number: 1, process: 7, limits: limits, agent: 5, program: "tests")
    }

    /// A session whose hello was taken, with region 0 of 64 blocks.
    private static func open(_ limits: EngineLimits = EngineLimits()) throws -> EngineSession {
        var session = session(limits)
        _ = try session.take(.hello(Sample.greeting()), at: .zero)
        try session.take(.attached(1), at: .zero) { _ in }
        _ = try session.take(.addRegion(0, byteCount: 64 * Sample.blockBytes), at: .zero)
        return session
    }

    private static func load(
        _ job: EngineTicket, request: EngineTicket = 0, asker: UInt16 = 0, rows: [Int] = [0]
    ) -> EngineFrame {
        .load(
            EngineLoad(
                job: job, request: request, asker: asker, names: Sample.names(1, rows.count), first: 0,
                places: Sample.rows(rows)))
    }

    private static func lookUp(_ ticket: EngineTicket) -> EngineFrame {
        .lookUp(EngineLookUp(ticket: ticket, names: Sample.names(1, 4), promptTokens: 64))
    }

    private func code(_ body: () throws(EngineRefusal) -> Void) -> EngineRefusalCode? {
        do throws(EngineRefusal) {
            try body()
            return nil
        } catch { return error.code }
    }

    private func frames(_ session: inout EngineSession, _ reply: EngineReply) throws(EngineRefusal) -> [EngineFrame] {
        var frames: [EngineFrame] = []
        try session.take(reply, at: .zero) { frames.append($0) }
        return frames
    }

    @Test func helloIsToldOnWithTheKernelsProcess() throws {
        var session = Self.session()
        guard case .forward(.attach(1, let hello)) = try session.take(.hello(Sample.greeting()), at: .zero) else {
            Issue.record("no attach")
            return
        }
        #expect(hello.process == 7)
        let welcome = try frames(&session, .attached(1))
        #expect(welcome.first?.header.kind == .welcome && session.phase == .open)
    }

    @Test func helloNamesBothSidesOfADifference() throws {
        var greeting = try Sample.greeting()
        greeting.digest[0] ^= 1
        do throws(EngineRefusal) {
            var session = Self.session()
            _ = try session.take(.hello(greeting), at: .zero)
            Issue.record("a wrong digest was taken")
        } catch {
            #expect(error.code == .layout)
            #expect(error.reason.contains("by the engine") && error.reason.contains("by the agent"))
        }
        var session = Self.session()
        _ = try session.take(.hello(Sample.greeting()), at: .zero)
        #expect(
            code { () throws(EngineRefusal) in _ = try frames(&session, .refused(1, reason: "model: a | b")) }
                == .layout)
    }

    @Test func aVisitorAsksForNoWork() throws {
        var session = Self.session()
        let hello = Sample.hello(kind: EngineProtocol.visitorKind)
        _ = try session.take(.hello(Sample.greeting(hello)), at: .zero)
        try session.take(.attached(1), at: .zero) { _ in }
        guard case .statistics(4) = try session.take(.askStatistics(4), at: .zero) else {
            Issue.record("a visitor may ask for numbers")
            return
        }
        for frame in [
            Self.lookUp(5), Self.load(6), .subscribe, .addRegion(0, byteCount: 4096), .openArena(isWritable: false),
        ] {
            #expect(code { () throws(EngineRefusal) in _ = try session.take(frame, at: .zero) } == .frame)
        }
        guard case .leave = try session.take(.goodbye, at: .zero) else {
            Issue.record("a visitor may leave")
            return
        }
    }

    @Test func ticketsAreOpenedOnce() throws {
        var session = try Self.open()
        _ = try session.take(Self.lookUp(3), at: .zero)
        #expect(code { () throws(EngineRefusal) in _ = try session.take(Self.lookUp(3), at: .zero) } == .ticket)
        #expect(code { () throws(EngineRefusal) in _ = try session.take(Self.load(3), at: .zero) } == .ticket)
        _ = try session.take(Self.load(4), at: .zero)
        #expect(code { () throws(EngineRefusal) in _ = try session.take(Self.load(4), at: .zero) } == .ticket)
        #expect(try frames(&session, .loaded(1, job: 4, first: 0, end: 1)).count == 1)
        _ = try session.take(Self.load(4), at: .zero)
    }

    /// Which requests another connection has open is not this one's to know.
    @Test func aRequestOfItsOwnMustBeOpenAndAnothersNeedNotBe() throws {
        var session = try Self.open()
        let open = session
        #expect(
            code { () throws(EngineRefusal) in
                var session = open
                _ = try session.take(Self.load(4, request: 9), at: .zero)
            } == .ticket)
        guard case .forward(.load(1, let load)) = try session.take(Self.load(4, request: 9, asker: 3), at: .zero) else {
            Issue.record("a load for another connection's request goes no further")
            return
        }
        #expect(load.request == 9 && load.asker == 3)
        #expect(try frames(&session, .loaded(1, job: 4, first: 0, end: 1)).count == 1)
        #expect(session.openJobs == 0 && session.openRequests == 0)
    }

    @Test func limitsHold() throws {
        var limits = EngineLimits()
        (limits.jobsMax, limits.requestsMax) = (3, 2)
        var session = try Self.open(limits)
        for ticket in 1...3 { _ = try session.take(Self.load(EngineTicket(ticket)), at: .zero) }
        #expect(code { () throws(EngineRefusal) in _ = try session.take(Self.load(9), at: .zero) } == .ticket)
        var other = try Self.open(limits)
        for ticket in 1...2 { _ = try other.take(Self.lookUp(EngineTicket(ticket)), at: .zero) }
        #expect(code { () throws(EngineRefusal) in _ = try other.take(Self.lookUp(9), at: .zero) } == .ticket)
    }

    @Test func whatAnEngineSaysOfSizesAndTimesCanBeAddedUp() throws {
        var session = try Self.open()
        let far = Duration(nanoseconds: 1 << 62)
        for ticket in EngineTicket(50)..<53 {
            _ = try session.take(.finished(EngineRequestEnd(ticket: ticket, timeToFirstToken: far)), at: .zero)
        }
        #expect(session.counters.firstTokenTime.sum == Duration(nanoseconds: .max))
        #expect(session.counters.firstTokenTime.count == 3)
        let huge = EngineFrame.addRegion(7, byteCount: .max)
        #expect(code { () throws(EngineRefusal) in _ = try session.take(huge, at: .zero) } == .frame)
        #expect(session.regionBytes == 64 * Sample.blockBytes)
    }

    @Test func placesStayInsideTheirRegion() throws {
        var session = try Self.open()
        _ = try session.take(Self.load(1, rows: [63]), at: .zero)
        #expect(
            code { () throws(EngineRefusal) in _ = try session.take(Self.load(2, rows: [64]), at: .zero) } == .frame)
        let far = EnginePlaces(slices: [MemorySlice(offset: Int.max - 4096, count: 4096)])
        let load = EngineLoad(job: 3, names: Sample.names(1, 1), first: 0, places: far)
        #expect(code { () throws(EngineRefusal) in _ = try session.take(.load(load), at: .zero) } == .frame)
        _ = try session.take(.dropRegion(0), at: .zero)
        #expect(code { () throws(EngineRefusal) in _ = try session.take(Self.load(4), at: .zero) } == .frame)
        #expect(code { () throws(EngineRefusal) in _ = try session.take(.dropRegion(0), at: .zero) } == .frame)
    }

    @Test func cancelIsAnsweredExactlyOnceEach() throws {
        var session = try Self.open()
        _ = try session.take(Self.lookUp(1), at: .zero)
        _ = try session.take(Self.load(2, request: 1), at: .zero)
        _ = try session.take(Self.load(3, request: 1), at: .zero)
        guard case .forward(.cancel(1, 1)) = try session.take(.cancel(1), at: .zero) else {
            Issue.record("not forwarded")
            return
        }
        // Asked twice: owed twice, forwarded once.
        guard case .nothing = try session.take(.cancel(1), at: .zero) else {
            Issue.record("forwarded twice")
            return
        }
        #expect(try frames(&session, .loaded(1, job: 3, first: 0, end: 0)).map(\.header.kind) == [.loaded])
        // The job that had no reply yet ends before its request.
        #expect(try frames(&session, .cancelled(1, 1)) == [.cancelled(2), .cancelled(1), .cancelled(1)])
        #expect(session.openJobs == 0 && session.openRequests == 0)
        guard case .reply(.cancelled(1)) = try session.take(.cancel(1), at: .zero) else {
            Issue.record("the cancellation of nothing has no answer")
            return
        }
    }

    @Test func aCancelledJobsTicketStaysTakenUntilItsAcknowledgement() throws {
        var session = try Self.open()
        _ = try session.take(Self.load(2), at: .zero)
        _ = try session.take(.cancel(2), at: .zero)
        #expect(try frames(&session, .loaded(1, job: 2, first: 0, end: 1)).count == 1)
        #expect(code { () throws(EngineRefusal) in _ = try session.take(Self.load(2), at: .zero) } == .ticket)
        #expect(try frames(&session, .cancelled(1, 2)) == [.cancelled(2)])
        _ = try session.take(Self.load(2), at: .zero)
    }

    @Test func withoutRoomThereIsNoCache() throws {
        var session = try Self.open()
        guard case .forward(let lookUp) = try session.take(Self.lookUp(1), at: .zero),
            case .reply(.found(1, let found)) = session.noRoom(for: lookUp, at: .zero)
        else {
            Issue.record("the look-up has no answer")
            return
        }
        #expect(found == EngineFound())
        // The decisions never heard of it: its load is answered here, its end goes no further.
        guard case .reply(.loaded(2, let loaded)) = try session.take(Self.load(2, request: 1), at: .zero) else {
            Issue.record("a load of an unknown request was forwarded")
            return
        }
        #expect(loaded.first == loaded.end)
        guard case .nothing = try session.take(.finished(EngineRequestEnd(ticket: 1)), at: .zero) else {
            Issue.record("the end of an unknown request was forwarded")
            return
        }
        guard case .forward(let hint) = try session.take(.prefetch(Sample.names(1, 2)), at: .zero),
            case .dropped = session.noRoom(for: hint, at: .zero)
        else {
            Issue.record("a hint was not dropped")
            return
        }
        #expect(session.counters.busy == 1 && session.counters.hintsDropped == 1)
    }

    @Test func goodbyeLetsJobsEnd() throws {
        var session = try Self.open()
        _ = try session.take(Self.load(2), at: .zero)
        _ = try session.take(.goodbye, at: .zero)
        #expect(!session.isDone)
        #expect(code { () throws(EngineRefusal) in _ = try session.take(Self.load(3), at: .zero) } == .frame)
        _ = try frames(&session, .loaded(1, job: 2, first: 0, end: 1))
        #expect(session.isDone)
    }

    @Test func drainingAnswersWithNothing() throws {
        var session = try Self.open()
        _ = try session.take(Self.load(1), at: .zero)
        #expect(session.drain("stops") == .farewell("stops"))
        guard case .reply(.found(5, EngineFound())) = try session.take(Self.lookUp(5), at: .zero),
            case .reply(.loaded(6, _)) = try session.take(Self.load(6), at: .zero)
        else {
            Issue.record("new work was taken")
            return
        }
        #expect(!session.isDone)
        _ = try frames(&session, .loaded(1, job: 1, first: 0, end: 1))
        #expect(session.isDone)
    }
}
