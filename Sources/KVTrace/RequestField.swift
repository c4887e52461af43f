// The fields of one JSON line of a trace: which names each format knows, and how their values are read.

import KVModel

/// A field that some format gives a request. The name it has in the file is the format's affair.
enum RequestField: Int, CaseIterable {
    case timestamp, inputTokens, outputTokens, blockIds, blockExtents
    case session, agent, turn, stopReason, serviceTime, thinkTime
    case chat, parentChat
}

/// The name of a field as two words, so that a name is found by comparing numbers. Longer names are nobody's.
struct FieldName: Equatable {
    var low: UInt64 = 0
    var high: UInt64 = 0

    init(_ text: String) {
        precondition(text.utf8.count <= 16, "a field name of more than 16 bytes")
        for (index, byte) in text.utf8.enumerated() { set(byte, at: index) }
    }

    /// The name in the line at `range`; `nil` when it has more than 16 bytes.
    @inline(__always)
    init?(_ range: Range<Int>, _ line: Span<UInt8>) {
        if range.count > 16 { return nil }
        for index in 0..<range.count { set(line[range.lowerBound + index], at: index) }
    }

    @inline(__always)
    private mutating func set(_ byte: UInt8, at index: Int) {
        if index < 8 { low |= UInt64(byte) << (8 * index) } else { high |= UInt64(byte) << (8 * (index - 8)) }
    }
}

/// One field of a format.
struct FieldSpecification {
    var field: RequestField
    var name: String
    var packed: FieldName
    var isRequired: Bool

    init(_ field: RequestField, _ name: String, required: Bool = false) {
        self.field = field
        self.name = name
        packed = FieldName(name)
        isRequired = required
    }
}

/// How a JSON-lines format spells a request.
struct LineFormat {
    var fields: [FieldSpecification]
    /// The power of ten that turns a time of the format into nanoseconds.
    var nanosecondPower: Int
    /// Tokens of a block unless the reader is told another size.
    var blockTokens: Int
    /// How many blocks a prompt of so many tokens has.
    var blockRule: BlockRule

    /// How the number of blocks follows from the prompt's length.
    enum BlockRule {
        /// Exactly ⌈tokens / block⌉: the last block may be partial.
        case exactlyWithPartial
        /// At most ⌈tokens / block⌉.
        case atMostWithPartial
        /// At most ⌊tokens / block⌋: full blocks only.
        case atMostFull
    }

    static let mooncake = LineFormat(
        fields: [
            FieldSpecification(.timestamp, "timestamp", required: true),
            FieldSpecification(.inputTokens, "input_length", required: true),
            FieldSpecification(.outputTokens, "output_length", required: true),
            FieldSpecification(.blockIds, "hash_ids", required: true),
        ], nanosecondPower: 6, blockTokens: 512, blockRule: .exactlyWithPartial)

    static let extents = LineFormat(
        fields: [
            FieldSpecification(.timestamp, "timestamp", required: true),
            FieldSpecification(.inputTokens, "input_length", required: true),
            FieldSpecification(.outputTokens, "output_length", required: true),
            FieldSpecification(.blockExtents, "hash_extents", required: true),
            FieldSpecification(.session, "session"), FieldSpecification(.agent, "agent"),
            FieldSpecification(.turn, "turn"), FieldSpecification(.stopReason, "stop"),
            FieldSpecification(.serviceTime, "api_ms"), FieldSpecification(.thinkTime, "think_ms"),
        ], nanosecondPower: 6, blockTokens: 64, blockRule: .atMostFull)

    static let bailian = LineFormat(
        fields: [
            FieldSpecification(.timestamp, "timestamp", required: true),
            FieldSpecification(.inputTokens, "input_length", required: true),
            FieldSpecification(.outputTokens, "output_length", required: true),
            FieldSpecification(.blockIds, "hash_ids", required: true),
            FieldSpecification(.chat, "chat_id", required: true), FieldSpecification(.parentChat, "parent_chat_id"),
            FieldSpecification(.turn, "turn"),
        ], nanosecondPower: 9, blockTokens: 16, blockRule: .atMostWithPartial)

    /// The lines after the header. The block size is the header's.
    static let holdfast = LineFormat(
        fields: [
            FieldSpecification(.timestamp, "arrival", required: true),
            FieldSpecification(.inputTokens, "input", required: true),
            FieldSpecification(.outputTokens, "output", required: true),
            FieldSpecification(.blockExtents, "blocks", required: true),
            FieldSpecification(.session, "session"), FieldSpecification(.turn, "turn"),
            FieldSpecification(.stopReason, "stop"), FieldSpecification(.serviceTime, "service"),
            FieldSpecification(.thinkTime, "think"),
        ], nanosecondPower: 0, blockTokens: 64, blockRule: .atMostWithPartial)
}

/// The values of one line. Reused from line to line, so that reading allocates nothing per request.
struct RequestValues {
    /// The fields that were there.
    private(set) var present: UInt32 = 0
    var timestamp = DecimalNumber()
    var inputTokens = DecimalNumber()
    var outputTokens = DecimalNumber()
    var turn = DecimalNumber()
    var serviceTime = DecimalNumber()
    var thinkTime = DecimalNumber()
    var session = SessionName()
    var chat = SessionName()
    var parentChat: SessionName?
    var stopReason = StopReason.unknown
    /// The block ids, extents spelled out.
    var ids: [UInt64] = []
    /// The extents as they stand, `first, count, first, count, …`; spelled out only once the count is known to fit.
    var extents: [UInt64] = []

    func has(_ field: RequestField) -> Bool { present & (1 << UInt32(field.rawValue)) != 0 }

    mutating func clear() {
        present = 0
        session = SessionName()
        parentChat = nil
        stopReason = .unknown
        ids.removeAll(keepingCapacity: true)
        extents.removeAll(keepingCapacity: true)
    }

    mutating func mark(_ field: FieldSpecification) throws(LineProblem) {
        if has(field.field) { throw LineProblem(.repeatedField, "\(field.name) is there twice") }
        present |= 1 << UInt32(field.field.rawValue)
    }

    mutating func unmark(_ field: RequestField) { present &= ~(1 << UInt32(field.rawValue)) }
}

/// What a file calls a conversation: a number or a text, and the sub-agent in it.
struct SessionName: Hashable {
    var number: UInt64 = 0
    var text: String?
    var agent = ""
}
