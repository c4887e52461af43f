// A span of a request's trace, and its form in OpenTelemetry's protocol (OTLP, JSON encoding). Writes nothing anywhere.

import Foundation
import KVModel

/// A trace's number: 128 bits, never all zero.
package struct TraceID: Hashable, Sendable {
    package var high: UInt64
    package var low: UInt64

    /// As OTLP's JSON has it: 32 digits.
    package var hex: String { RequestSpan.hex(high) + RequestSpan.hex(low) }
}

/// Something that took time for a request.
package struct RequestSpan: Sendable, Equatable {
    /// What a value of an attribute can be.
    package enum Value: Sendable, Equatable {
        case text(String)
        case number(Int64)
        case flag(Bool)
    }

    package var trace: TraceID
    /// Never zero.
    package var number: UInt64
    /// The span it belongs to; 0 for a trace's root.
    package var parent: UInt64 = 0
    package var name: String
    package var start: Instant
    package var end: Instant
    package var attributes: [(name: String, value: Value)] = []
    /// Why it failed, if it did.
    package var failure: String?

    package static func == (left: RequestSpan, right: RequestSpan) -> Bool {
        left.trace == right.trace && left.number == right.number && left.parent == right.parent
            && left.name == right.name && left.start == right.start && left.end == right.end
            && left.failure == right.failure
            && left.attributes.elementsEqual(right.attributes) { $0.name == $1.name && $0.value == $1.value }
    }

    /// The value of an attribute.
    package subscript(_ name: String) -> Value? { attributes.first { $0.name == name }?.value }

    /// 16 digits.
    static func hex(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}

/// Whose spans they are.
package struct TraceResource: Sendable {
    /// The program and its version.
    package var program: String
    /// The machine's name.
    package var host: String
    /// Distinguishes agents of one machine, and an agent from the one before it.
    package var instance: String
    /// What the monotonic clock's zero was by the wall clock, in nanoseconds since 1970.
    package var wallClockAtZero: Int64

    package init(program: String, host: String, instance: String, wallClockAtZero: Int64) {
        self.program = program
        self.host = host
        self.instance = instance
        self.wallClockAtZero = wallClockAtZero
    }

    /// One `ExportTraceServiceRequest`, on one line.
    package func encode(_ spans: [RequestSpan]) -> Data {
        let resource = OTLP.Resource(attributes: [
            OTLP.Attribute("service.name", .text("holdfast-agent")), OTLP.Attribute("host.name", .text(host)),
            OTLP.Attribute("service.instance.id", .text(instance)),
        ])
        let scope = OTLP.ScopeSpans(
            scope: OTLP.Scope(name: "holdfast.agent", version: program),
            spans: spans.map { OTLP.Span($0, wallClockAtZero: wallClockAtZero) })
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let request = OTLP.Request(resourceSpans: [OTLP.ResourceSpans(resource: resource, scopeSpans: [scope])])
        // Numbers and text only: there is nothing in it that cannot be encoded.
        return (try? encoder.encode(request)) ?? Data()
    }
}

/// OTLP's messages, as far as a span needs them. Field names are the protocol's (opentelemetry-proto, `trace.proto`), in the lower
/// camel case of its JSON encoding: numbers of 64 bits are text, span and trace numbers hexadecimal.
private enum OTLP {
    struct Request: Encodable { var resourceSpans: [ResourceSpans] }
    struct ResourceSpans: Encodable {
        var resource: Resource
        var scopeSpans: [ScopeSpans]
    }
    struct Resource: Encodable { var attributes: [Attribute] }
    struct ScopeSpans: Encodable {
        var scope: Scope
        var spans: [Span]
    }
    struct Scope: Encodable {
        var name: String
        var version: String
    }
    struct Status: Encodable {
        var code: Int
        var message: String
    }

    struct Attribute: Encodable {
        struct Value: Encodable {
            var stringValue: String?
            var intValue: String?
            var boolValue: Bool?
        }

        var key: String
        var value: Value

        init(_ key: String, _ value: RequestSpan.Value) {
            self.key = key
            self.value =
                switch value {
                case .text(let text): Value(stringValue: text)
                case .number(let number): Value(intValue: String(number))
                case .flag(let flag): Value(boolValue: flag)
                }
        }
    }

    struct Span: Encodable {
        var traceId: String
        var spanId: String
        var parentSpanId: String?
        var name: String
        /// 1: internal; 2: server, a request that came from outside.
        var kind: Int
        var startTimeUnixNano: String
        var endTimeUnixNano: String
        var attributes: [Attribute]
        var status: Status?

        init(_ span: RequestSpan, wallClockAtZero: Int64) {
            traceId = span.trace.hex
            spanId = RequestSpan.hex(span.number)
            parentSpanId = span.parent == 0 ? nil : RequestSpan.hex(span.parent)
            name = span.name
            kind = span.parent == 0 ? 2 : 1
            startTimeUnixNano = String(wallClockAtZero + span.start.nanoseconds)
            endTimeUnixNano = String(wallClockAtZero + span.end.nanoseconds)
            attributes = span.attributes.map { Attribute($0.name, $0.value) }
            // 2: error.
            status = span.failure.map { Status(code: 2, message: $0) }
        }
    }
}
