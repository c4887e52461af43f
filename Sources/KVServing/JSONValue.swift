// JSON as a value: what a points file says, to be given back beside what was predicted.

import Foundation
import KVModel

/// Any JSON value.
public enum JSONValue: Codable, Sendable, Equatable {
    /// null.
    case null
    /// true or false.
    case bool(Bool)
    /// A whole number.
    case integer(Int64)
    /// Any other number.
    case number(Double)
    /// A text.
    case text(String)
    /// A list.
    case list([JSONValue])
    /// Values by key.
    case object([String: JSONValue])

    /// Reads any JSON value.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Int64.self) {
            self = .integer(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .text(value)
        } else if let value = try? container.decode([JSONValue].self) {
            self = .list(value)
        } else {
            self = .object(try container.decode([String: JSONValue].self))
        }
    }

    /// Writes the value.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let value): try container.encode(value)
        case .integer(let value): try container.encode(value)
        case .number(let value): try container.encode(value)
        case .text(let value): try container.encode(value)
        case .list(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }

    /// A number, or null where there is none.
    init(_ value: Double?) { self = value.map(JSONValue.number) ?? .null }

    /// The number, of either kind.
    var number: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }

    var text: String? { if case .text(let value) = self { value } else { nil } }
    var list: [JSONValue]? { if case .list(let value) = self { value } else { nil } }
    var object: [String: JSONValue]? { if case .object(let value) = self { value } else { nil } }

    /// Reads a JSON text. `place` names the file in the error.
    static func parse(_ bytes: [UInt8], at place: String) throws(OperatorError) -> JSONValue {
        do {
            return try JSONDecoder().decode(JSONValue.self, from: Data(bytes))
        } catch let DecodingError.dataCorrupted(context) {
            let reason = (context.underlyingError as NSError?)?.userInfo[NSDebugDescriptionErrorKey] as? String
            throw OperatorError("not readable as JSON: \(reason ?? context.debugDescription)", at: place)
        } catch let DecodingError.typeMismatch(_, context) {
            // All kinds of values are taken, so it is a number, and one that has no room.
            let path = context.codingPath.map(\.stringValue).joined(separator: ".")
            throw OperatorError("a number\(path.isEmpty ? "" : " at `\(path)`") is beyond 1.8e308", at: place)
        } catch {
            throw OperatorError("not readable as JSON: \(error)", at: place)
        }
    }

    /// The value as JSON text, keys sorted.
    public var formatted: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(self) else {
            preconditionFailure("a JSON value with a number that is none")
        }
        return String(decoding: data, as: UTF8.self)
    }
}
