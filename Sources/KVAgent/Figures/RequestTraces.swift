// What passed the door, made into traces: one a request, with a span for its look-up, each load and each save. A pure value: it
// is told times and draws its numbers from a seed.

import KVModel
import KVSystem
import KVTiering

/// What passed the door, without its names and places.
package struct DoorSighting: Sendable {
    package enum What: Sendable {
        case lookUp(blocks: Int32, promptTokens: Int32, session: UInt64, turn: Int32)
        case found(Answer)
        /// `asker`: the connection that looked the request up, 0: the one that loads or saves.
        case load(request: EngineTicket, asker: UInt16, first: Int32, blocks: Int32)
        case loaded(first: Int32, end: Int32)
        case save(request: EngineTicket, asker: UInt16, first: Int32, blocks: Int32)
        case saved(blocks: Int32)
        case finished(EngineRequestEnd)
        case cancelled
        /// The decisions had no room for it; the door answered with nothing.
        case busy
        case gone
    }

    package var engine: EngineNumber
    package var ticket: EngineTicket
    package var at: Instant
    package var what: What

    package init(engine: EngineNumber, ticket: EngineTicket, at: Instant, what: What) {
        self.engine = engine
        self.ticket = ticket
        self.at = at
        self.what = what
    }

    /// What a message begins or ends, if that is anything of a trace.
    init?(_ message: EngineMessage, at: Instant) {
        switch message {
        case .lookUp(let engine, let lookUp):
            self.init(
                engine: engine, ticket: lookUp.ticket, at: at,
                what: .lookUp(
                    blocks: Int32(truncatingIfNeeded: lookUp.names.count), promptTokens: lookUp.promptTokens,
                    session: lookUp.session, turn: lookUp.turn))
        case .load(let engine, let load):
            self.init(
                engine: engine, ticket: load.job, at: at,
                what: .load(
                    request: load.request, asker: load.asker, first: load.first,
                    blocks: Int32(truncatingIfNeeded: load.places.blockCount)))
        case .save(let engine, let save):
            self.init(
                engine: engine, ticket: save.job, at: at,
                what: .save(
                    request: save.request, asker: save.asker, first: save.first,
                    blocks: Int32(truncatingIfNeeded: save.places.blockCount)))
        case .take(let engine, let take):
            self.init(
                engine: engine, ticket: take.job, at: at,
                what: .load(request: take.request, asker: take.asker, first: take.first, blocks: take.count))
        case .commit(let engine, let commit):
            self.init(
                engine: engine, ticket: commit.job, at: at,
                what: .save(
                    request: commit.request, asker: commit.asker, first: commit.first,
                    blocks: Int32(truncatingIfNeeded: commit.slots.count)))
        case .finished(let engine, let end):
            self.init(engine: engine, ticket: end.ticket, at: at, what: .finished(end))
        case .gone(let engine): self.init(engine: engine, ticket: 0, at: at, what: .gone)
        default: return nil
        }
    }

    /// What a reply ends, if that is anything of a trace.
    init?(_ reply: EngineReply, at: Instant) {
        switch reply {
        case .found(let engine, let ticket, let answer):
            self.init(engine: engine, ticket: ticket, at: at, what: .found(answer))
        case .loaded(let engine, let job, let first, let end):
            self.init(engine: engine, ticket: job, at: at, what: .loaded(first: first, end: end))
        case .taken(let engine, let job, let taken):
            self.init(engine: engine, ticket: job, at: at, what: .loaded(first: taken.first, end: taken.end))
        case .saved(let engine, let job, let kept):
            let count = kept.reduce(0) { $0 + $1.nonzeroBitCount }
            self.init(engine: engine, ticket: job, at: at, what: .saved(blocks: Int32(truncatingIfNeeded: count)))
        case .cancelled(let engine, let ticket): self.init(engine: engine, ticket: ticket, at: at, what: .cancelled)
        default: return nil
        }
    }
}

/// Open requests and jobs, and the spans of those that ended.
package struct RequestTraces {
    private struct Name: Hashable {
        var engine: EngineNumber
        var ticket: EngineTicket

        init(engine: EngineNumber, ticket: EngineTicket) {
            self.engine = engine
            self.ticket = ticket
        }

        /// A request that a job of an engine names.
        init(engine: EngineNumber, _ asker: UInt16, _ request: EngineTicket) {
            self.init(engine: asker == 0 ? engine : EngineNumber(asker), ticket: request)
        }
    }

    private let openMax: Int
    private var random: RandomSource
    private var requests: [Name: RequestSpan] = [:]
    private var jobs: [Name: RequestSpan] = [:]
    /// Spans that ended and were not yet taken.
    package private(set) var ended: [RequestSpan] = []
    /// Requests and jobs that were not followed, because too many were open.
    package private(set) var dropped = 0

    /// - Parameter openMax: Requests, and jobs, that are followed at once.
    package init(seed: UInt64, openMax: Int = 1 << 16) {
        self.openMax = openMax
        random = RandomSource(seed: seed)
    }

    /// Takes the spans that ended.
    package mutating func take() -> [RequestSpan] {
        defer { ended.removeAll(keepingCapacity: true) }
        return ended
    }

    /// Takes what passed.
    package mutating func see(_ sighting: DoorSighting) {
        let name = Name(engine: sighting.engine, ticket: sighting.ticket)
        switch sighting.what {
        case .lookUp(let blocks, let promptTokens, let session, let turn):
            guard requests.count < openMax else { return dropped += 1 }
            var span = root("request", name, sighting.at)
            span.attributes += [
                ("gen_ai.usage.input_tokens", .number(Int64(promptTokens))),
                ("holdfast.prompt.blocks", .number(Int64(blocks))),
            ]
            if session != 0 { span.attributes.append(("holdfast.session", .text(RequestSpan.hex(session)))) }
            if turn >= 0 { span.attributes.append(("holdfast.turn", .number(Int64(turn)))) }
            requests[name] = span
        case .found(let answer): found(answer, name, sighting.at)
        case .load(let request, let asker, let first, let blocks):
            begin("load", name, Name(engine: name.engine, asker, request), first, blocks, sighting.at)
        case .save(let request, let asker, let first, let blocks):
            begin("save", name, Name(engine: name.engine, asker, request), first, blocks, sighting.at)
        case .loaded(let first, let end):
            close(name, sighting.at, [("holdfast.blocks.loaded", .number(Int64(end - first)))])
        case .saved(let blocks): close(name, sighting.at, [("holdfast.blocks.kept", .number(Int64(blocks)))])
        case .finished(let end): finish(end, name, sighting.at)
        case .cancelled, .busy:
            let reason = if case .busy = sighting.what { "busy" } else { "cancelled" }
            close(name, sighting.at, [], failure: reason)
            if var span = requests.removeValue(forKey: name) {
                span.end = sighting.at
                span.failure = reason
                ended.append(span)
            }
        case .gone: engineLeft(sighting.engine, sighting.at)
        }
    }

    private mutating func found(_ answer: Answer, _ name: Name, _ at: Instant) {
        guard let request = requests[name] else { return }
        var span = child("lookup", of: request, request.start)
        span.end = at
        span.attributes = [
            ("holdfast.blocks.found", .number(Int64(answer.hitBlocks))),
            ("holdfast.blocks.engine", .number(Int64(answer.hbmBlocks))),
            ("holdfast.blocks.dram", .number(Int64(answer.dramBlocks))),
            ("holdfast.blocks.nvme", .number(Int64(answer.nvmeBlocks))),
            ("holdfast.blocks.store", .number(Int64(answer.flashBlocks))),
        ]
        ended.append(span)
    }

    private mutating func begin(
        _ what: String, _ name: Name, _ request: Name, _ first: Int32, _ blocks: Int32, _ at: Instant
    ) {
        guard jobs.count < openMax else { return dropped += 1 }
        var span = if let owner = requests[request] { child(what, of: owner, at) } else { root(what, name, at) }
        span.attributes += [
            ("holdfast.blocks.first", .number(Int64(first))), ("holdfast.blocks.wanted", .number(Int64(blocks))),
        ]
        jobs[name] = span
    }

    private mutating func close(
        _ name: Name, _ at: Instant, _ attributes: [(name: String, value: RequestSpan.Value)], failure: String? = nil
    ) {
        guard var span = jobs.removeValue(forKey: name) else { return }
        span.end = at
        span.attributes += attributes
        span.failure = failure
        ended.append(span)
    }

    private mutating func finish(_ end: EngineRequestEnd, _ name: Name, _ at: Instant) {
        guard var span = requests.removeValue(forKey: name) else { return }
        span.end = at
        span.attributes.append(("holdfast.stop_reason", .text("\(end.reason)")))
        if end.cachedTokens >= 0 {
            span.attributes.append(("holdfast.tokens.cached", .number(Int64(end.cachedTokens))))
        }
        if end.timeToFirstToken > .zero {
            let microseconds = end.timeToFirstToken.nanoseconds / 1_000
            span.attributes.append(("holdfast.time_to_first_token_us", .number(microseconds)))
        }
        if end.answerTokens > 0 {
            span.attributes.append(("gen_ai.usage.output_tokens", .number(Int64(end.answerTokens))))
        }
        ended.append(span)
    }

    /// Nothing of an engine that left will end by itself. What began later is another's that has its number now.
    private mutating func engineLeft(_ engine: EngineNumber, _ at: Instant) {
        let left = requests.filter { $0.key.engine == engine && $0.value.start <= at }
        let cut = jobs.filter { $0.key.engine == engine && $0.value.start <= at }
        for name in left.keys { requests[name] = nil }
        for name in cut.keys { jobs[name] = nil }
        for var span in (Array(left.values) + Array(cut.values)).sorted(by: { $0.start < $1.start }) {
            span.end = at
            span.failure = "the engine left"
            ended.append(span)
        }
    }

    private mutating func root(_ what: String, _ name: Name, _ at: Instant) -> RequestSpan {
        let trace = TraceID(high: number(), low: number())
        return RequestSpan(
            trace: trace, number: number(), name: "holdfast.\(what)", start: at, end: at,
            attributes: [("holdfast.engine", .number(Int64(name.engine)))])
    }

    private mutating func child(_ what: String, of request: RequestSpan, _ at: Instant) -> RequestSpan {
        RequestSpan(
            trace: request.trace, number: number(), parent: request.number, name: "holdfast.\(what)", start: at,
            end: at)
    }

    private mutating func number() -> UInt64 { max(1, random.next()) }
}
