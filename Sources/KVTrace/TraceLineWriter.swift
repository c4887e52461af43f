// Writes traces: our own format, which keeps everything, and Mooncake and extents for other tools.

import Crypto
import KVModel

/// Turns a trace into lines.
struct TraceLineWriter {
    let trace: Trace
    let format: TraceFormat

    /// Calls `emit` with pieces of about 64 KiB that make up the file, and the requests written so far.
    func write(_ emit: ([UInt8], Int) throws(OperatorError) -> Void) throws(OperatorError) {
        var piece: [UInt8] = []
        piece.reserveCapacity(80 << 10)
        if format == .holdfast {
            piece += Array(HoldfastHeader(blockTokens: trace.blockTokens, origin: trace.origin).line.utf8) + [0x0A]
        }
        for (index, request) in trace.requests.enumerated() {
            switch format {
            case .mooncake: appendMooncake(request, to: &piece)
            case .extents: appendExtents(request, to: &piece)
            default: appendHoldfast(request, to: &piece)
            }
            if piece.count >= 64 << 10 {
                try emit(piece, index + 1)
                piece.removeAll(keepingCapacity: true)
            }
        }
        if !piece.isEmpty { try emit(piece, trace.requests.count) }
    }

    private func appendHoldfast(_ request: TraceRequest, to piece: inout [UInt8]) {
        append("{\"arrival\":", request.arrival.nanoseconds, to: &piece)
        append(",\"input\":", Int64(request.inputTokens), to: &piece)
        append(",\"output\":", Int64(request.outputTokens), to: &piece)
        if request.session >= 0 { append(",\"session\":", Int64(request.session), to: &piece) }
        if request.turn >= 0 { append(",\"turn\":", Int64(request.turn), to: &piece) }
        if request.stopReason != .unknown {
            append(",\"stop\":\"\(request.stopReason.traceName)\"", to: &piece)
        }
        if let service = request.serviceTime { append(",\"service\":", service.nanoseconds, to: &piece) }
        if let think = request.thinkTime { append(",\"think\":", think.nanoseconds, to: &piece) }
        append(",\"blocks\":", to: &piece)
        appendRuns(trace.path(of: request), to: &piece)
        append("}\n", to: &piece)
    }

    private func appendExtents(_ request: TraceRequest, to piece: inout [UInt8]) {
        appendLengths(request, to: &piece)
        if request.session >= 0 {
            append(",\"session\":", Int64(request.session), to: &piece)
            append(",\"agent\":\"\"", to: &piece)
        }
        if request.turn >= 0 { append(",\"turn\":", Int64(request.turn), to: &piece) }
        if request.session >= 0 { append(",\"stop\":\"\(request.stopReason.traceName)\"", to: &piece) }
        if let service = request.serviceTime { append(",\"api_ms\":", milliseconds(service.nanoseconds), to: &piece) }
        if let think = request.thinkTime { append(",\"think_ms\":", milliseconds(think.nanoseconds), to: &piece) }
        append(",\"hash_extents\":", to: &piece)
        appendRuns(trace.path(of: request), to: &piece)
        append("}\n", to: &piece)
    }

    private func appendMooncake(_ request: TraceRequest, to piece: inout [UInt8]) {
        appendLengths(request, to: &piece)
        append(",\"hash_ids\":[", to: &piece)
        var isFirst = true
        for block in trace.path(of: request) {
            if !isFirst { piece.append(0x2C) }
            isFirst = false
            append("", Int64(block), to: &piece)
        }
        append("]}\n", to: &piece)
    }

    /// The fields that the two foreign formats share.
    private func appendLengths(_ request: TraceRequest, to piece: inout [UInt8]) {
        append("{\"timestamp\":", milliseconds(request.arrival.nanoseconds), to: &piece)
        append(",\"input_length\":", Int64(request.inputTokens), to: &piece)
        append(",\"output_length\":", Int64(request.outputTokens), to: &piece)
    }

    private func milliseconds(_ nanoseconds: Int64) -> Int64 { (nanoseconds + 500_000) / 1_000_000 }

    /// `[[first,count],…]`, one pair for each run of consecutive numbers.
    private func appendRuns(_ path: ArraySlice<BlockNumber>, to piece: inout [UInt8]) {
        piece.append(0x5B)
        var index = path.startIndex
        while index < path.endIndex {
            let first = path[index]
            var count = 1
            while index + count < path.endIndex, path[index + count] == first &+ BlockNumber(count) { count += 1 }
            append(index == path.startIndex ? "[" : ",[", Int64(first), to: &piece)
            append(",", Int64(count), to: &piece)
            piece.append(0x5D)
            index += count
        }
        piece.append(0x5D)
    }

    private func append(_ text: String, to piece: inout [UInt8]) { piece.append(contentsOf: text.utf8) }

    private func append(_ text: StaticString, _ number: Int64, to piece: inout [UInt8]) {
        piece.append(contentsOf: text.description.utf8)
        if number < 10, number >= 0 {
            piece.append(0x30 + UInt8(number))
        } else {
            piece.append(contentsOf: String(number).utf8)
        }
    }
}

extension Trace {
    /// SHA-256 of the trace in our own format, uncompressed: the same content, the same digest.
    public var contentDigest: String {
        var digest = SHA256()
        do throws(OperatorError) {
            try TraceLineWriter(trace: self, format: .holdfast).write { (piece, _) throws(OperatorError) in
                digest.update(data: piece)
            }
        } catch {
            preconditionFailure("a digest cannot fail")
        }
        return digest.finalize().map { String(hexadecimal($0).dropFirst(2)).lowercased() }.joined()
    }
}
