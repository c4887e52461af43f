// In which order the decisions hear what engines say: look-ups overtake ends of requests and what other engines said, and nothing
// else overtakes anything.

import KVAgent
import KVModel
import KVTiering
import Testing

@Suite struct MessageBacklogTests {
    private static func desk() throws -> EngineDesk {
        let tiering = try AgentConfiguration().tiering(
            slotBytes: Sample.blockBytes, blockTokens: 16, ownership: .engine)
        var limits = AgentLimits()
        limits.namesMax = 16
        var desk = EngineDesk(tiering, limits: limits)
        for engine in 1...4 { desk.take(.attach(EngineNumber(engine), Sample.hello()), links: fastLinks, at: .zero) }
        return desk
    }

    private static func lookUp(_ engine: EngineNumber, _ ticket: EngineTicket, session: UInt64 = 0) -> EngineMessage {
        .lookUp(
            engine,
            EngineLookUp(ticket: ticket, names: Sample.names(ticket, 2), promptTokens: 33, session: session, turn: 0))
    }

    private static func end(_ engine: EngineNumber, _ ticket: EngineTicket) -> EngineMessage {
        .finished(engine, EngineRequestEnd(ticket: ticket))
    }

    /// What is heard before anything else is done, in order, and then the ends that waited. Look-ups open their requests.
    private static func heard(_ messages: [EngineMessage], _ desk: inout EngineDesk) -> (
        urgent: [String], ends: [String]
    ) {
        var backlog = MessageBacklog()
        for message in messages { backlog.append(PostedMessage(message)) }
        var urgent: [String] = []
        while let message = backlog.takeUrgent(desk)?.message {
            if case .lookUp = message { desk.take(message, links: fastLinks, at: .zero) }
            urgent.append(name(message))
        }
        var ends: [String] = []
        while let message = backlog.takeEnd()?.message { ends.append(name(message)) }
        #expect(backlog.isEmpty)
        return (urgent, ends)
    }

    private static func name(_ message: EngineMessage) -> String {
        switch message {
        case .lookUp(let engine, let lookUp): "look-up \(engine).\(lookUp.ticket)"
        case .finished(let engine, let end): "end \(engine).\(end.ticket)"
        case .touch(let engine, let names): "touch \(engine).\(names.count)"
        default: "another"
        }
    }

    @Test func messagesWaitByWhatTheyCarry() {
        let weight = MessageWeight(itemsMax: 40)
        func lookUp(_ count: Int) -> EngineMessage {
            .lookUp(1, EngineLookUp(ticket: 1, names: Sample.names(1, count), promptTokens: 1))
        }
        func touch(_ count: Int) -> EngineMessage { .touch(1, Sample.names(1, count)) }
        #expect(weight.add(touch(10)))
        #expect(!weight.add(touch(1)), "hints have a quarter")
        #expect(weight.add(lookUp(30)) && !weight.add(lookUp(1)))
        #expect(weight.add(Self.end(1, 1)), "ends are always heard")
        weight.remove(lookUp(30))
        #expect(weight.add(lookUp(30)))
        weight.remove(lookUp(30))
        weight.remove(touch(10))
        #expect(weight.add(lookUp(1000)), "one alone has room")
    }

    @Test func lookUpsOvertakeEndsOfOtherRequests() throws {
        var desk = try Self.desk()
        let heard = Self.heard(
            [Self.lookUp(1, 7), Self.end(1, 7), Self.lookUp(1, 8), Self.lookUp(2, 7), Self.end(2, 7)], &desk)
        #expect(heard.urgent == ["look-up 1.7", "look-up 1.8", "look-up 2.7"])
        #expect(heard.ends == ["end 1.7", "end 2.7"])
    }

    @Test func whatIsNoLookUpComesBehindTheEndsBeforeIt() throws {
        var desk = try Self.desk()
        let touch = EngineMessage.touch(2, Sample.names(3, 1))
        let heard = Self.heard([Self.end(1, 7), Self.end(2, 9), touch, Self.end(1, 8), Self.lookUp(1, 10)], &desk)
        #expect(heard.urgent == ["look-up 1.10", "end 1.7", "end 2.9", "touch 2.1"])
        #expect(heard.ends == ["end 1.8"])
    }

    @Test func lookUpsOvertakeWhatOtherEnginesSaid() throws {
        var desk = try Self.desk()
        let touches = (1...3).map { EngineMessage.touch(1, Sample.names(3, $0)) }
        let heard = Self.heard(
            [touches[0], touches[1], Self.lookUp(1, 7), Self.lookUp(2, 8), touches[2], Self.lookUp(2, 9)], &desk)
        #expect(heard.urgent == ["look-up 2.8", "look-up 2.9", "touch 1.1", "touch 1.2", "look-up 1.7", "touch 1.3"])
    }

    @Test func aLookUpOvertakesNothingOfItsConversation() throws {
        var desk = try Self.desk()
        let touch = EngineMessage.touch(1, Sample.names(3, 1))
        let heard = Self.heard(
            [
                Self.lookUp(1, 6, session: 4), touch, Self.end(1, 6), Self.lookUp(1, 7, session: 5),
                Self.lookUp(2, 8, session: 5), Self.lookUp(3, 9, session: 4), Self.lookUp(4, 9, session: 6),
            ], &desk)
        #expect(
            heard.urgent == [
                "look-up 1.6", "look-up 4.9", "touch 1.1", "look-up 1.7", "look-up 2.8", "end 1.6", "look-up 3.9",
            ])
    }

    @Test func aMessageIsOvertakenAFewTimesAndNoMore() throws {
        let desk = try Self.desk()
        var backlog = MessageBacklog()
        backlog.append(PostedMessage(.touch(1, Sample.names(3, 1))))
        // Each comes when the one before has been heard.
        let heard = (1...40).map { ticket in
            backlog.append(PostedMessage(Self.lookUp(2, EngineTicket(ticket))))
            return backlog.takeUrgent(desk)?.message.map(Self.name)
        }
        #expect(heard.firstIndex(of: "touch 1.1") == MessageBacklog.overtakesMax)
    }

    @Test func aConversationsNextTurnComesBehindTheEndOfTheOneBefore() throws {
        var desk = try Self.desk()
        let heard = Self.heard(
            [
                Self.lookUp(1, 7, session: 5), Self.end(1, 7), Self.lookUp(2, 8, session: 6),
                Self.lookUp(2, 9, session: 5),
            ], &desk)
        #expect(heard.urgent == ["look-up 1.7", "look-up 2.8", "end 1.7", "look-up 2.9"])
        #expect(heard.ends.isEmpty)
    }

    @Test func aTicketIsNotUsedAgainBeforeItsEndIsHeard() throws {
        var desk = try Self.desk()
        let heard = Self.heard([Self.lookUp(1, 7), Self.end(1, 7), Self.lookUp(1, 7), Self.lookUp(2, 7)], &desk)
        #expect(heard.urgent == ["look-up 1.7", "look-up 2.7", "end 1.7", "look-up 1.7"])
    }

    @Test func noMoreThanAFewEndsWait() throws {
        var desk = try Self.desk()
        var messages: [EngineMessage] = []
        for ticket in 1...40 { messages += [Self.lookUp(1, EngineTicket(ticket)), Self.end(1, EngineTicket(ticket))] }
        let heard = Self.heard(messages, &desk)
        #expect(heard.ends.count == MessageBacklog.endsMax)
        #expect(heard.urgent.filter { $0.hasPrefix("end") } == (1...24).map { "end 1.\($0)" })
        #expect(heard.ends == (25...40).map { "end 1.\($0)" })
    }

    @Test func orderHoldsForEverythingElse() throws {
        var random = RandomSource(seed: 11)
        for _ in 0..<200 {
            var desk = try Self.desk()
            var messages: [EngineMessage] = []
            var open: [(EngineNumber, EngineTicket)] = []
            for ticket in 1...60 {
                let engine = EngineNumber(1 + random.below(2))
                switch random.below(5) {
                case 0, 1:
                    messages.append(Self.lookUp(engine, EngineTicket(ticket), session: UInt64(random.below(4))))
                    open.append((engine, EngineTicket(ticket)))
                case 2, 3:
                    guard !open.isEmpty else { continue }
                    let (engine, ticket) = open.remove(at: random.below(open.count))
                    messages.append(Self.end(engine, ticket))
                default: messages.append(.touch(engine, Sample.names(EngineTicket(ticket), ticket)))
                }
            }
            let heard = Self.heard(messages, &desk)
            let came = messages.map(Self.name)
            let all = heard.urgent + heard.ends
            #expect(all.sorted() == came.sorted(), "each is heard once")
            for kind in [["look-up 1", "touch 1"], ["look-up 2", "touch 2"], ["end", "touch"]] {
                func some(_ names: [String]) -> [String] {
                    names.filter { name in kind.contains { name.hasPrefix($0) } }
                }
                #expect(some(all) == some(came), "\(kind) in the order in which they came")
            }
            let sessions = Dictionary(
                uniqueKeysWithValues: messages.compactMap { message -> (String, UInt64)? in
                    guard case .lookUp(_, let lookUp) = message else { return nil }
                    return (Self.name(message), lookUp.session)
                })
            for session in UInt64(1)...3 {
                func turns(_ names: [String]) -> [String] { names.filter { sessions[$0] == session } }
                #expect(turns(all) == turns(came), "a conversation's look-ups in the order in which they came")
            }
        }
    }
}
