// Turns the values of lines into requests: checks what the numbers mean together, and grows the arrays.

import KVModel

/// A trace while it is being read.
struct TraceBuilder {
    private let options: TraceReadOptions
    private(set) var format: TraceFormat?
    private(set) var requests: [TraceRequest] = []
    var skippedLineCount = 0
    private(set) var hasHeader = false

    private var blocks: [BlockNumber] = []
    private var interner = PathInterner()
    private var sessions: [SessionName: Int32] = [:]
    private var turnsOfChats: [SessionName: (session: Int32, turn: Int32)] = [:]
    private var values = RequestValues()
    private var parser: RequestLineParser?
    private var azure: AzureRowParser?
    private var header: HoldfastHeader?
    private var origin = Instant.zero
    private var lastTime: Int64 = 0
    private var lastTurns: [Int32: Int32] = [:]
    private var note: LineProblem?

    init(options: TraceReadOptions, format: TraceFormat?) {
        self.options = options
        if let format { use(format) }
    }

    static let unknownFormat = "no known trace format"

    // MARK: The format

    private mutating func use(_ format: TraceFormat) {
        self.format = format
        switch format {
        case .mooncake: parser = RequestLineParser(format: .mooncake)
        case .extents: parser = RequestLineParser(format: .extents)
        case .bailian: parser = RequestLineParser(format: .bailian)
        case .holdfast: parser = RequestLineParser(format: .holdfast)
        case .azure: parser = nil
        }
    }

    /// Takes the format from what may be the first line.
    mutating func recognise(_ range: Range<Int>, _ line: Span<UInt8>) throws(LineProblem) {
        guard let format = TraceFormat.recognised(in: line, range) else {
            let expected = TraceFormat.allCases.map(\.summary).joined(separator: ", ")
            throw LineProblem(
                .syntax, "\(Self.unknownFormat): it \(TraceFormat.description(ofUnknown: line, range))",
                remedy: "expected one of \(expected)")
        }
        use(format)
    }

    /// Takes the line if it is the format's header.
    mutating func takeHeader(_ range: Range<Int>, _ line: Span<UInt8>) throws(LineProblem) -> Bool {
        if hasHeader { return false }
        switch format {
        case .holdfast: header = try HoldfastHeader(range, of: line)
        case .azure:
            guard let parser = AzureRowParser(header: TraceFormat.text(line, range)) else {
                throw LineProblem(
                    .syntax, "the header lacks a column: it \(TraceFormat.description(ofUnknown: line, range))",
                    remedy: "expected \(AzureRowParser.columns.joined(separator: ","))")
            }
            azure = parser
        default: return false
        }
        hasHeader = true
        return true
    }

    /// Tokens of a full block.
    private var blockTokens: Int {
        if let header { return header.blockTokens }
        return options.blockTokens ?? parser?.format.blockTokens ?? 1
    }

    // MARK: Requests

    /// Reads one line and appends its request; changes nothing when it throws.
    mutating func append(_ range: Range<Int>, _ line: Span<UInt8>) throws(LineProblem) {
        if let azure {
            try azure.parse(range, of: line, into: &values)
        } else {
            try parser!.parse(range, of: line, into: &values, interner: &interner)
        }
        let input = try tokens(values.inputTokens, .inputTokens)
        let output = try tokens(values.outputTokens, .outputTokens)
        let time = try nanoseconds(values.timestamp, .timestamp)
        if !requests.isEmpty, time < lastTime {
            throw LineProblem(
                .timeOrder, "\(name(.timestamp)) runs backwards", remedy: "sort the file by \(name(.timestamp))")
        }
        var request = TraceRequest(
            arrival: .zero, inputTokens: input, outputTokens: output, firstReference: blocks.count, blockCount: 0)
        request.stopReason = values.stopReason
        if values.has(.serviceTime) {
            request.serviceTime = Duration(nanoseconds: try nanoseconds(values.serviceTime, .serviceTime))
        }
        if values.has(.thinkTime) {
            request.thinkTime = Duration(nanoseconds: try nanoseconds(values.thinkTime, .thinkTime))
        }
        if values.has(.turn) { request.turn = try turn() }
        request.blockCount = try spellOutPath(inputTokens: Int(input))
        // Bailian hashes each block of 16 tokens by itself, not what comes before it.
        if format == .bailian {
            try interner.appendContents(values.ids, to: &blocks)
        } else {
            try interner.append(values.ids, to: &blocks)
        }
        // Nothing below can fail.
        placeInConversation(&request)
        if requests.isEmpty { origin = clockOrigin(firstTime: time) }
        request.arrival = Instant(nanoseconds: time - origin.nanoseconds)
        lastTime = time
        requests.append(request)
        if options.checksTurnOrder { noteTurn(request) }
    }

    private mutating func noteTurn(_ request: TraceRequest) {
        if request.session < 0 || request.turn < 0 { return }
        // Bailian conversations may branch: two answers to one turn have the same place.
        let floor = (lastTurns[request.session] ?? -1) + (format == .bailian ? 0 : 1)
        if request.turn < floor {
            note = LineProblem(
                .turnOrder, "turn \(request.turn) of its conversation comes after turn \(lastTurns[request.session]!)")
        }
        lastTurns[request.session] = max(request.turn, lastTurns[request.session] ?? 0)
    }

    /// What the last line made worth noting, once.
    mutating func takeNote() -> LineProblem? {
        defer { note = nil }
        return note
    }

    /// The name the format has for a field.
    private func name(_ field: RequestField) -> String {
        if let named = parser?.format.fields.first(where: { $0.field == field }) { return named.name }
        switch field {
        case .timestamp: return AzureRowParser.columns[0]
        case .inputTokens: return AzureRowParser.columns[1]
        default: return AzureRowParser.columns[2]
        }
    }

    private func tokens(_ number: DecimalNumber, _ field: RequestField) throws(LineProblem) -> Int32 {
        if number.isBelowZero { throw LineProblem(.outOfRange, "\(name(field)) is negative") }
        guard let whole = number.wholeNumber else {
            throw LineProblem(.outOfRange, "\(name(field)) is not a whole number of tokens")
        }
        guard whole <= UInt64(Trace.tokensRange.upperBound) else {
            throw LineProblem(
                .outOfRange, "\(name(field)) is \(whole); more than \(Trace.tokensRange.upperBound) tokens is absurd")
        }
        return Int32(whole)
    }

    private func nanoseconds(_ number: DecimalNumber, _ field: RequestField) throws(LineProblem) -> Int64 {
        if number.isBelowZero { throw LineProblem(.outOfRange, "\(name(field)) is negative") }
        guard let time = number.scaled(byPowerOfTen: parser?.format.nanosecondPower ?? 9) else {
            throw LineProblem(.outOfRange, "\(name(field)) is more than 292 years")
        }
        return time
    }

    private func turn() throws(LineProblem) -> Int32 {
        guard let whole = values.turn.wholeNumber, let turn = Int32(exactly: whole) else {
            throw LineProblem(.outOfRange, "turn is not a whole number from 0 to \(Int32.max)")
        }
        // Bailian counts from one.
        return format == .bailian ? max(turn - 1, 0) : turn
    }

    /// Makes `values.ids` the path of the request, and checks that it fits the prompt.
    private mutating func spellOutPath(inputTokens: Int) throws(LineProblem) -> Int32 {
        guard let rule = parser?.format.blockRule else { return 0 }
        let full = inputTokens / blockTokens
        let withPartial = (inputTokens + blockTokens - 1) / blockTokens
        var count = values.ids.count
        for index in stride(from: 1, to: values.extents.count, by: 2) {
            let (sum, overflow) = count.addingReportingOverflow(Int(clamping: values.extents[index]))
            count = overflow ? Int.max : sum
        }
        let limit = rule == .atMostFull ? full : withPartial
        if count > limit || (rule == .exactlyWithPartial && count != limit) {
            let wanted = rule == .exactlyWithPartial ? "\(limit)" : "at most \(limit)"
            throw LineProblem(
                .blockCount,
                "\(count) blocks for \(inputTokens) tokens, expected \(wanted) of \(blockTokens) tokens each",
                remedy: header == nil ? "if its blocks are of another size, say so with --block-tokens" : "")
        }
        if blocks.count + count > options.referenceLimit {
            throw LineProblem(.outOfRange, "the trace has more than \(options.referenceLimit) block references")
        }
        for index in stride(from: 0, to: values.extents.count, by: 2) where values.extents[index + 1] > 0 {
            let first = values.extents[index]
            values.ids.append(contentsOf: first...(first + values.extents[index + 1] - 1))
        }
        return Int32(count)
    }

    private mutating func placeInConversation(_ request: inout TraceRequest) {
        if format == .bailian {
            let parent = values.parentChat.flatMap { turnsOfChats[$0] }
            let session = parent?.session ?? number(ofSession: values.chat)
            if !values.has(.turn) { request.turn = (parent?.turn ?? -1) + 1 }
            request.session = session
            turnsOfChats[values.chat] = (session, request.turn)
        } else if values.has(.session) {
            request.session = number(ofSession: values.session)
        }
    }

    private mutating func number(ofSession name: SessionName) -> Int32 {
        if let known = sessions[name] { return known }
        let fresh = Int32(clamping: sessions.count)
        sessions[name] = fresh
        return fresh
    }

    /// A trace whose clock counts from 1970 is moved to start at zero; every other keeps its clock.
    private func clockOrigin(firstTime: Int64) -> Instant {
        let tenYears: Int64 = 10 * 365 * 86_400 * 1_000_000_000
        return format == .azure || firstTime > tenYears ? Instant(nanoseconds: firstTime) : .zero
    }

    /// The trace that was read.
    func trace(name: String, sha256: String) -> Trace {
        var trace = Trace(
            name: name, format: format!, sha256: sha256, blockTokens: blockTokens, requests: requests,
            blocks: blocks, uniqueBlockCount: interner.count, skippedLineCount: skippedLineCount)
        trace.origin = header?.origin
        return trace
    }
}
