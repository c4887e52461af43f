// What the fuzzer calls: one input, read as a trace. The first byte chooses how; the rest is the file. Compressed files
// are left to gzip and zstd themselves: a child process for each input would leave no time to find anything.

import KVModel
import KVTrace

/// libFuzzer's entry. A crash, a trap, a sanitizer's finding or a result that breaks its promise is a failure.
@_cdecl("LLVMFuzzerTestOneInput")
public func readAsTrace(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: start, count: count))
    guard let choice = input.first else { return 0 }
    let file = Array(input.dropFirst())
    if file.starts(with: [0x1F, 0x8B]) || file.starts(with: [0x28, 0xB5, 0x2F, 0xFD]) { return 0 }
    var options = TraceReadOptions(lineByteLimit: 1 << 14, referenceLimit: 1 << 18)
    options.skipsBadLines = choice & 1 != 0
    let formats = TraceFormat.allCases
    let format = Int(choice >> 2) % (formats.count + 1)
    if format < formats.count { options.format = formats[format] }
    do throws(OperatorError) {
        let trace = try Trace.read(bytes: file, name: "input", options: options)
        _ = TraceStatistics(trace)
        if choice & 2 != 0 {
            let full = try trace.reblocked(to: trace.blockTokens)
            let again = try full.reblocked(to: trace.blockTokens)
            precondition(full.contentDigest == again.contentDigest, "full blocks of the same size changed")
            _ = try TraceCheck.run(bytes: file, name: "input", options: options)
        }
        for request in trace.requests {
            precondition(
                trace.path(of: request).allSatisfy { Int($0) < trace.uniqueBlockCount }, "a block has no number")
        }
    } catch {
        precondition(!error.what.isEmpty, "an error says nothing")
    }
    return 0
}
