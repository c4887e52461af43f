// What passes the door becomes traces: the right spans under the right parents, ended once, nothing kept for engines that left.

import CKernel
import Foundation
import KVAgent
import KVModel
import KVSystem
import KVTiering
import Logging
import Testing

@Suite struct RequestTracesTests {
    private func at(_ microseconds: Int64) -> Instant { Instant(nanoseconds: microseconds * 1_000) }

    private func see(
        _ traces: inout RequestTraces, _ ticket: EngineTicket, _ time: Int64, _ what: DoorSighting.What,
        engine: EngineNumber = 1
    ) {
        traces.see(DoorSighting(engine: engine, ticket: ticket, at: at(time), what: what))
    }

    private var lookUp: DoorSighting.What { .lookUp(blocks: 8, promptTokens: 130, session: 7, turn: 2) }

    @Test func aRequestsLookUpLoadAndSaveAreItsChildren() throws {
        var traces = RequestTraces(seed: 1)
        see(&traces, 5, 10, lookUp)
        var answer = Answer(request: 0)
        answer.hitBlocks = 6
        answer.dramBlocks = 4
        answer.flashBlocks = 2
        see(&traces, 5, 30, .found(answer))
        see(&traces, 6, 40, .load(request: 5, asker: 0, first: 0, blocks: 6))
        see(&traces, 6, 90, .loaded(first: 0, end: 5))
        see(&traces, 7, 100, .save(request: 5, asker: 0, first: 6, blocks: 2))
        var end = EngineRequestEnd(ticket: 5, reason: .toolUse, cachedTokens: 80)
        end.timeToFirstToken = Duration(nanoseconds: 2_000_000)
        see(&traces, 5, 150, .finished(end))
        see(&traces, 7, 160, .saved(blocks: 2))

        let spans = traces.take()
        #expect(
            spans.map(\.name) == ["holdfast.lookup", "holdfast.load", "holdfast.request", "holdfast.save"])
        let request = try #require(spans.first { $0.name == "holdfast.request" })
        #expect(request.parent == 0 && request.start == at(10) && request.end == at(150))
        #expect(request["gen_ai.usage.input_tokens"] == .number(130))
        #expect(request["holdfast.tokens.cached"] == .number(80))
        #expect(request["holdfast.time_to_first_token_us"] == .number(2_000))
        #expect(request["holdfast.stop_reason"] == .text("toolUse"))
        for child in spans where child.name != "holdfast.request" {
            #expect(child.parent == request.number && child.trace == request.trace && child.number != request.number)
        }
        #expect(spans[0]["holdfast.blocks.dram"] == .number(4) && spans[0]["holdfast.blocks.store"] == .number(2))
        #expect(spans[1]["holdfast.blocks.loaded"] == .number(5) && spans[1]["holdfast.blocks.wanted"] == .number(6))
        #expect(traces.take().isEmpty)
    }

    /// Workers load and save over connections of their own, for the one that looked up.
    @Test func whatAnotherConnectionDoesForARequestIsItsChild() throws {
        var traces = RequestTraces(seed: 1)
        see(&traces, 5, 10, lookUp, engine: 1)
        // A ticket of the same number, of its own.
        see(&traces, 5, 11, lookUp, engine: 2)
        see(&traces, 6, 20, .load(request: 5, asker: 1, first: 0, blocks: 6), engine: 2)
        see(&traces, 6, 30, .loaded(first: 0, end: 6), engine: 2)
        see(&traces, 7, 40, .save(request: 5, asker: 1, first: 6, blocks: 2), engine: 2)
        see(&traces, 7, 50, .saved(blocks: 2), engine: 2)
        see(&traces, 5, 60, .finished(EngineRequestEnd(ticket: 5)), engine: 1)
        let spans = traces.take()
        let request = try #require(spans.first { $0.name == "holdfast.request" })
        #expect(spans.map(\.name) == ["holdfast.load", "holdfast.save", "holdfast.request"])
        for child in spans.prefix(2) { #expect(child.parent == request.number && child.trace == request.trace) }
    }

    @Test func aJobWithoutARequestIsATraceOfItsOwn() {
        var traces = RequestTraces(seed: 1)
        see(&traces, 9, 1, .save(request: 0, asker: 0, first: 0, blocks: 1))
        see(&traces, 9, 2, .saved(blocks: 0))
        let spans = traces.take()
        #expect(spans.count == 1 && spans[0].parent == 0 && spans[0].name == "holdfast.save")
    }

    @Test func whatIsCancelledBusyOrLeftEndsAsAFailure() {
        var traces = RequestTraces(seed: 1)
        see(&traces, 1, 1, lookUp)
        see(&traces, 1, 2, .cancelled)
        see(&traces, 2, 3, lookUp)
        see(&traces, 2, 4, .busy)
        see(&traces, 3, 5, lookUp)
        see(&traces, 4, 6, .load(request: 3, asker: 0, first: 0, blocks: 1))
        see(&traces, 3, 6, lookUp, engine: 2)
        see(&traces, 0, 7, .gone)
        let spans = traces.take()
        #expect(spans.map(\.failure) == ["cancelled", "busy", "the engine left", "the engine left"])
        // The other engine's goes on; what ended is not ended again.
        see(&traces, 3, 8, .finished(EngineRequestEnd(ticket: 3)))
        see(&traces, 4, 8, .loaded(first: 0, end: 1))
        #expect(traces.take().isEmpty)
        see(&traces, 3, 9, .finished(EngineRequestEnd(ticket: 3)), engine: 2)
        #expect(traces.take().count == 1)
    }

    @Test func noMoreAreFollowedThanThereIsRoomFor() {
        var traces = RequestTraces(seed: 1, openMax: 2)
        for ticket in 1...5 { see(&traces, EngineTicket(ticket), 1, lookUp) }
        #expect(traces.dropped == 3)
        for ticket in 1...5 {
            see(&traces, EngineTicket(ticket), 2, .finished(EngineRequestEnd(ticket: EngineTicket(ticket))))
        }
        #expect(traces.take().count == 2)
    }

    private struct Line: Decodable {
        struct Resource: Decodable { var scopeSpans: [Scope] }
        struct Scope: Decodable { var spans: [Span] }
        struct Span: Decodable {
            var traceId: String
            var spanId: String
            var parentSpanId: String?
            var name: String
            var startTimeUnixNano: String
            var endTimeUnixNano: String
        }
        var resourceSpans: [Resource]
    }

    private let resource = TraceResource(program: "holdfast", host: "h", instance: "i", wallClockAtZero: 1_000)

    @Test func theFileHoldsOTLPAndTheOneBeforeIsKept() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let path = folder.appendingPathComponent("traces.jsonl").path
        for round in 1...2 {
            let export = try TraceExport(
                .file(path, bytesMax: 1), resource: resource, seed: UInt64(round), logger: Logger(label: "tests"))
            for ticket in 1...3 as ClosedRange<EngineTicket> {
                export.see(DoorSighting(engine: 1, ticket: ticket, at: at(5), what: lookUp))
                let end = EngineRequestEnd(ticket: ticket)
                export.see(DoorSighting(engine: 1, ticket: ticket, at: at(9), what: .finished(end)))
            }
            export.shutDown()
            #expect(export.counters.exported == 3 && export.counters.dropped == 0)
        }
        for name in [path, path + ".1"] {
            let text = try String(contentsOfFile: name, encoding: .utf8)
            let lines = text.split(separator: "\n")
            let spans = try lines.flatMap {
                try JSONDecoder().decode(Line.self, from: Data($0.utf8)).resourceSpans.flatMap(\.scopeSpans)
                    .flatMap(\.spans)
            }
            #expect(spans.count == 3)
            for span in spans {
                #expect(span.traceId.count == 32 && span.spanId.count == 16 && span.parentSpanId == nil)
                #expect(span.startTimeUnixNano == "6000" && span.endTimeUnixNano == "10000")
            }
        }
    }

    /// It is told late when there was no room for it; its number may be another's by then.
    @Test func whatBeganAfterAnEngineLeftIsNotEndedWithIt() {
        var traces = RequestTraces(seed: 1)
        see(&traces, 5, 10, lookUp)
        see(&traces, 6, 30, lookUp)
        see(&traces, 0, 20, .gone)
        #expect(traces.take().map(\.start) == [at(10)])
        see(&traces, 6, 40, .finished(EngineRequestEnd(ticket: 6)))
        #expect(traces.take().map(\.failure) == [nil])
    }

    @Test func aFullFileThatSomebodyTookAwayIsMadeAnew() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let path = folder.appendingPathComponent("traces.jsonl").path
        try "full\n".write(toFile: path, atomically: false, encoding: .utf8)
        let export = try TraceExport(
            .file(path, bytesMax: 1), resource: resource, seed: 1, logger: Logger(label: "tests"))
        try FileManager.default.removeItem(atPath: path)
        export.see(DoorSighting(engine: 1, ticket: 1, at: at(5), what: lookUp))
        export.see(DoorSighting(engine: 1, ticket: 1, at: at(9), what: .finished(EngineRequestEnd(ticket: 1))))
        export.shutDown()
        #expect(export.counters.exported == 1 && export.counters.dropped == 0)
        #expect(try String(contentsOfFile: path, encoding: .utf8).contains("resourceSpans"))
    }

    /// What it was woken for is done once: a span that waits a second for others wakes nobody meanwhile.
    @Test func theThreadSleepsWhileNothingHappens() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let export = try TraceExport(
            .file(folder.appendingPathComponent("traces.jsonl").path, bytesMax: 1 << 20), resource: resource, seed: 1,
            logger: Logger(label: "tests"))
        defer { export.shutDown() }
        // One after another, so that it sleeps when most of them come and is woken.
        for ticket in 1...10 as ClosedRange<EngineTicket> {
            let before = export.counters.looks
            export.see(DoorSighting(engine: 1, ticket: ticket, at: at(5), what: lookUp))
            #expect(Sample.wait { export.counters.looks > before })
        }
        export.see(DoorSighting(engine: 1, ticket: 1, at: at(9), what: .finished(EngineRequestEnd(ticket: 1))))
        #expect(Sample.wait { export.counters.exported == 1 })
        // Once to begin with, once or twice for each that was seen, once at the end of the second. It was hundreds of thousands.
        #expect(export.counters.looks < 40, "\(export.counters.looks)")
    }

    /// No engine waits for it: what there is no room for is dropped and counted, but for the end of an engine, which closes what
    /// would stay open for ever.
    @Test func aCollectorThatNeverAnswersFillsTheQueueAndNoMore() throws {
        // The kernel takes the connection and the spans; nobody ever reads them.
        let listener = unsafe hf_tcp_listen("127.0.0.1", 0, 8)
        #expect(listener >= 0)
        var logger = Logger(label: "tests")
        logger.logLevel = .critical
        let target = try TraceTarget("http://127.0.0.1:\(hf_socket_port(listener))", bytesMax: 1)
        let export = try TraceExport(target, resource: resource, seed: 1, logger: logger)
        export.see(DoorSighting(engine: 2, ticket: 1, at: at(4), what: lookUp))
        var ended: UInt64 = 0
        for ticket in 1...(1 << 17) as ClosedRange<EngineTicket> {
            export.see(DoorSighting(engine: 1, ticket: ticket, at: at(5), what: lookUp))
            if export.counters.dropped > 0 { break }
            let end = EngineRequestEnd(ticket: ticket)
            export.see(DoorSighting(engine: 1, ticket: ticket, at: at(9), what: .finished(end)))
            if export.counters.dropped > 0 { break }
            ended += 1
        }
        #expect(export.counters.dropped == 1 && ended >= 8_000, "\(export.counters), \(ended) ended")
        export.see(DoorSighting(engine: 2, ticket: 0, at: at(10), what: .gone))
        #expect(export.counters.dropped == 1)
        hf_close(listener)
        export.shutDown()
        // What found no room, each request's span, and that of the engine that left.
        #expect(
            export.counters.exported == 0 && export.counters.dropped == 1 + ended + 1,
            "\(export.counters), \(ended) ended")
    }

    @Test func aCollectorThatIsNotThereCostsItsSpansAndNothingElse() throws {
        // Port 9 of this machine: nobody listens there, and the kernel says so at once.
        let target = try TraceTarget("http://127.0.0.1:9", bytesMax: 1)
        #expect(target == .collector("http://127.0.0.1:9/v1/traces"))
        var logger = Logger(label: "tests")
        logger.logLevel = .critical
        let export = try TraceExport(target, resource: resource, seed: 1, logger: logger)
        export.see(DoorSighting(engine: 1, ticket: 1, at: at(5), what: lookUp))
        export.see(
            DoorSighting(engine: 1, ticket: 1, at: at(9), what: .finished(EngineRequestEnd(ticket: 1))))
        export.shutDown()
        #expect(export.counters.exported == 0 && export.counters.dropped == 1)
        #expect(throws: OperatorError.self) { try TraceTarget("ftp://somewhere", bytesMax: 1) }
    }
}
